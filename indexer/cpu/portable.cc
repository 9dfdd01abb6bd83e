// Index logits in plain C++; sixteen partial sums where the vector kernels have lanes.

#include <array>
#include <cstdint>

#include "base/dtypes.h"
#include "indexer/cpu/kernels.h"

namespace dsa::indexer::cpu {
namespace {

constexpr int64_t kLanes = 16;

void widen(const uint8_t* codes, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = to_float(e4m3{codes[i]});
}

float dot(const float* a, const float* b) {
    std::array<float, kLanes> lanes{};
    for (int64_t i = 0; i < kDim; i += kLanes)
        for (int64_t l = 0; l < kLanes; ++l) lanes[static_cast<size_t>(l)] += a[i + l] * b[i + l];
    for (size_t width = kLanes / 2; width > 0; width /= 2)
        for (size_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    return lanes[0];
}

void logits(const LogitsTile& t) {
    const auto* key_scale = reinterpret_cast<const float*>(t.page + kPageKeys * kDim);
    auto* keys = static_cast<float*>(t.scratch);
    float* q = keys + kPageKeys * kDim;
    widen(t.page, kPageKeys * kDim, keys);
    for (int64_t row = 0; row < t.rows; ++row) {
        widen(t.q8 + row * t.heads * kDim, t.heads * kDim, q);
        for (int64_t key = 0; key < kPageKeys; ++key) {
            float sum = 0.0F;
            for (int64_t h = 0; h < t.heads; ++h) {
                const float product = dot(q + h * kDim, keys + key * kDim);
                sum += t.w[row * t.heads + h] * (product < 0.0F ? 0.0F : product);  // NaN survives
            }
            t.logits[row * t.ld + key] = sum * key_scale[key];
        }
    }
}

}  // namespace

extern const Kernels kPortableKernels = {logits};

}  // namespace dsa::indexer::cpu
