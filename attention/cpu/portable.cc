// Sparse MLA in plain C++: the same splits and merges; sixteen partial sums where the vector
// kernels have lanes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "attention/cpu/kernels.h"
#include "base/dtypes.h"
#include "base/lanes.h"

namespace dsa::attention::cpu {
namespace {

void widen_record(const uint8_t* record, float* out) {
    float scale[4];
    std::memcpy(scale, record + kLatent, sizeof(scale));
    for (int64_t i = 0; i < kLatent; ++i)
        out[i] = round_bf16(to_float(e4m3{record[i]}) * scale[i / 128]);
    bf16 rope[kRope];
    std::memcpy(rope, record + kLatent + sizeof(scale), sizeof(rope));
    for (int64_t i = 0; i < kRope; ++i) out[kLatent + i] = to_float(rope[i]);
}

void split(const SplitArgs& a) {
    auto* keys = static_cast<float*>(a.scratch);
    for (int64_t j = 0; j < a.count; ++j) {
        const int64_t s = a.indices[j];
        widen_record(a.pages[s / kTokensPerPage] + a.page_offset + s % kTokensPerPage * kRecord,
                     keys + j * kKey);
    }
    for (int64_t h = 0; h < a.heads; ++h) {
        float q[kKey];
        for (int64_t d = 0; d < kKey; ++d) q[d] = to_float(bf16{a.q[h * kKey + d]});
        float p[kSplitKeys];
        float m = -INFINITY;
        for (int64_t j = 0; j < a.count; ++j) {
            p[j] = sum_lanes(dot_lanes(q, keys + j * kKey, kKey)) * a.scale;
            m = std::max(m, p[j]);
        }
        float l = 0.0F;
        float* z = a.out.z + h * kLatent;
        std::fill(z, z + kLatent, 0.0F);
        for (int64_t j = 0; j < a.count; ++j) {
            const float e = std::exp(p[j] - m);
            l += e;
            for (int64_t d = 0; d < kLatent; ++d) z[d] += e * keys[j * kKey + d];
        }
        a.out.m[h] = m;
        a.out.l[h] = l;
    }
}

void merge(int64_t heads, const Partial& into, const Partial& next) {
    for (int64_t h = 0; h < heads; ++h) {
        const float m = std::max(into.m[h], next.m[h]);
        const float old_weight = std::exp(into.m[h] - m);
        const float new_weight = std::exp(next.m[h] - m);
        into.m[h] = m;
        into.l[h] = into.l[h] * old_weight + next.l[h] * new_weight;
        for (int64_t d = h * kLatent; d < (h + 1) * kLatent; ++d)
            into.z[d] = into.z[d] * old_weight + next.z[d] * new_weight;
    }
}

void finish(int64_t heads, const Partial& x, uint16_t* out) {
    for (int64_t h = 0; h < heads; ++h)
        for (int64_t d = h * kLatent; d < (h + 1) * kLatent; ++d)
            out[d] = to_bf16(x.z[d] / x.l[h]).bits;
}

}  // namespace

extern const Kernels kPortableKernels = {split, merge, finish};

}  // namespace dsa::attention::cpu
