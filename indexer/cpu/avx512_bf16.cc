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
    static constexpr int kVecs = 4;

    static inline void widen(const uint8_t* codes, int64_t n, uint16_t* out) {
        const simd::E4m3ToBf16 table = simd::load_e4m3_to_bf16();
        for (int64_t i = 0; i < n; i += 64) {
            __m512i first;
            __m512i second;
            simd::e4m3_to_bf16(table, _mm512_loadu_si512(codes + i), &first, &second);
            _mm512_storeu_si512(out + i, first);
            _mm512_storeu_si512(out + i + 32, second);
        }
    }
    static inline Vec load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return simd::dot_bf16(acc, a, b); }
};

}  // namespace

extern const Kernels kAvx512Bf16Kernels = {logits_tile<V>};

}  // namespace dsa::indexer::cpu
