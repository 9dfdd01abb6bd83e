// Sparse MLA with VDPBF16PS: keys, queries and probabilities in bf16, sums in fp32.

#include <immintrin.h>

#include <cstdint>

#include "attention/cpu/kernels.h"
#include "attention/cpu/split.h"
#include "base/avx512.h"

namespace dsa::attention::cpu {
namespace {

struct V {
    using Vec = __m512i;
    using Element = uint16_t;
    struct KeyPair {
        Vec first, second;
    };
    static constexpr int kDims = 32;
    static constexpr int kPair = 2;

    static inline Vec load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    static inline void store_query(uint16_t* p, __m512i x) { _mm512_storeu_si512(p, x); }
    static inline Vec key_part(__m512i k, int) { return k; }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return simd::dot_bf16(acc, a, b); }
    static inline Vec broadcast(const uint16_t* p) { return simd::broadcast_pair(p); }
    static inline void store_probability(uint16_t* p, __m512 v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), simd::f32_to_bf16(v));
    }
    static inline KeyPair load_keys(const uint16_t* p) {
        const __m512i even = load(p);
        const __m512i odd = load(p + kKey);
        return {_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd)};
    }
    // Unpacking stays within 128 bits.
    static constexpr int key_lane(int half, int lane) { return lane / 4 * 8 + 4 * half + lane % 4; }
};

}  // namespace

extern const Kernels kAvx512Bf16Kernels = {split<V>, merge, finish<V>};

}  // namespace dsa::attention::cpu
