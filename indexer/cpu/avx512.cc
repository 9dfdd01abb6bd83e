// Index logits with AVX-512 F/BW/VL/DQ: fp32 FMA.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "indexer/cpu/kernels.h"
#include "indexer/cpu/logits_tile.h"

namespace dsa::indexer::cpu {
namespace {

struct V {
    using Vec = __m512;
    using Element = float;
    static constexpr int kStepK = 1;

    static inline void widen(const uint8_t* codes, int64_t n, float* out) {
        for (int64_t i = 0; i < n; i += 16)
            _mm512_storeu_ps(
                out + i,
                simd::e4m3_to_f32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i))));
    }
    static inline void widen_keys(const uint8_t* codes, float* panel) {
        for (int64_t half = 0; half < kDim; half += 64) {
            float* out = panel + half * kLaneKeys;
            simd::e4m3_columns_to_f32(codes + half, kKeyOffsets, 64, [&](int64_t step, Vec keys) {
                _mm512_storeu_ps(out + 16 * step, keys);
            });
        }
    }
    static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
    static inline Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return _mm512_fmadd_ps(a, b, acc); }
};

}  // namespace

extern const Kernels kAvx512Kernels = {sizeof(V::Element), widen_queries<V>, logits_tile<V>};

}  // namespace dsa::indexer::cpu
