// Index logits in plain C++.

#include <cstdint>

#include "base/dtypes.h"
#include "base/lanes.h"
#include "indexer/cpu/kernels.h"

namespace dsa::indexer::cpu {
namespace {

void widen(const uint8_t* codes, int64_t n, void* out) {
    for (int64_t i = 0; i < n; ++i) static_cast<float*>(out)[i] = to_float(e4m3{codes[i]});
}

void logits(const LogitsTile& t) {
    const auto* key_scale = reinterpret_cast<const float*>(t.page + kPageKeys * kDim);
    auto* keys = static_cast<float*>(t.scratch);
    widen(t.page, kPageKeys * kDim, keys);
    for (int64_t row = 0; row < t.rows; ++row) {
        const float* q = static_cast<const float*>(t.q) + row * t.heads * kDim;
        for (int64_t key = 0; key < kPageKeys; ++key) {
            float sum = 0.0F;
            for (int64_t h = 0; h < t.heads; ++h) {
                const float product = sum_lanes(dot_lanes(q + h * kDim, keys + key * kDim, kDim));
                sum += t.w[row * t.heads + h] * (product < 0.0F ? 0.0F : product);  // NaN survives
            }
            t.logits[row * t.ld + key] = sum * key_scale[key];
        }
    }
}

}  // namespace

extern const Kernels kPortableKernels = {sizeof(float), widen, logits};

}  // namespace dsa::indexer::cpu
