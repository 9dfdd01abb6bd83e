// Index logits with VDPBF16PS: e4m3 widens to bf16 exactly.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "indexer/cpu/kernels.h"
#include "indexer/cpu/logits_tile.h"

namespace dsa::indexer::cpu {
namespace {

struct V {
    using Vec = __m512i;
    using Element = uint16_t;
    static constexpr int kStepK = 2;

    static inline void widen(const uint8_t* codes, int64_t n, uint16_t* out) {
        const simd::E4m3ToBf16 table = simd::load_e4m3_to_bf16();
        for (int64_t i = 0; i < n; i += 64) {
            Vec v[2];
            simd::e4m3_to_bf16(table, _mm512_loadu_si512(codes + i), &v[0], &v[1]);
            _mm512_storeu_si512(out + i, v[0]);
            _mm512_storeu_si512(out + i + 32, v[1]);
        }
    }
    static inline void widen_keys(const uint8_t* codes, uint16_t* panel) {
        const simd::E4m3ToBf16 table = simd::load_e4m3_to_bf16();
        for (int64_t half = 0; half < kDim; half += 64) {
            uint16_t* out = panel + half * kLaneKeys;
            simd::e4m3_columns_to_bf16(
                table, codes + half, kKeyOffsets, 64,
                [&](int64_t step, Vec keys) { _mm512_storeu_si512(out + 32 * step, keys); });
        }
    }
    static inline Vec load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    static inline Vec broadcast(const uint16_t* p) { return simd::broadcast_pair(p); }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return simd::dot_bf16(acc, a, b); }
};

}  // namespace

extern const Kernels kAvx512Bf16Kernels = {sizeof(V::Element), widen_queries<V>, logits_tile<V>};

}  // namespace dsa::indexer::cpu
