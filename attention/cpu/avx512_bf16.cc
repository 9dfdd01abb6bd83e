// Sparse MLA with VDPBF16PS: keys, queries and probabilities in bf16, sums in fp32.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "attention/cpu/kernels.h"
#include "attention/cpu/split.h"
#include "base/avx512.h"

namespace dsa::attention::cpu {
namespace {

struct V {
    using Vec = __m512i;
    using Element = uint16_t;
    using Consts = simd::E4m3ToBf16;
    struct KeyPair {
        Vec first, second;
    };
    static constexpr int kStep = 32;
    static constexpr int kPair = 2;

    static inline Consts consts() { return simd::load_e4m3_to_bf16(); }
    static inline Vec load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    static inline const uint16_t* widen_queries(const uint16_t* q, int64_t, uint16_t*) { return q; }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return simd::dot_bf16(acc, a, b); }
    static inline Vec broadcast(const uint16_t* p) { return simd::broadcast_pair(p); }
    static inline void store_probability(uint16_t* p, __m512 v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), simd::f32_to_bf16(v));
    }
    // Dims in the order of the in-lane unpack; unscramble() puts the sums right.
    static inline KeyPair load_keys(const uint16_t* p) {
        const __m512i even = load(p);
        const __m512i odd = load(p + kKey);
        return {_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd)};
    }
    static inline void unscramble(__m512* first, __m512* second) {
        const __m512 low = _mm512_shuffle_f32x4(*first, *second, 0x44);   // f0 f1 s0 s1
        const __m512 high = _mm512_shuffle_f32x4(*first, *second, 0xee);  // f2 f3 s2 s3
        *first = _mm512_shuffle_f32x4(low, low, 0xd8);                    // f0 s0 f1 s1
        *second = _mm512_shuffle_f32x4(high, high, 0xd8);
    }

    // bf16(x * scale) of 32 bf16, any scale.
    static inline Vec scale_rounded(Vec x, __m512 scale) {
        const __m512 low = simd::bf16_to_f32(_mm512_castsi512_si256(x));
        const __m512 high = simd::bf16_to_f32(_mm512_extracti64x4_epi64(x, 1));
        return _mm512_inserti64x4(
            _mm512_castsi256_si512(simd::f32_to_bf16(_mm512_mul_ps(low, scale))),
            simd::f32_to_bf16(_mm512_mul_ps(high, scale)), 1);
    }

    // 128 codes with one scale. A power of two is added to the exponents, which is exact while
    // nothing gets near the ends of bf16's range; NaN codes and other scales go through fp32.
    static inline void widen_block(const Consts& c, const uint8_t* codes, float scale,
                                   uint16_t* out) {
        uint32_t bits = 0;
        std::memcpy(&bits, &scale, 4);
        const int exponent = static_cast<int>((bits >> 23) & 0xffU) - 127;
        const bool shift_only = power_of_two(scale);
        const __m512i shift = _mm512_set1_epi16(static_cast<int16_t>(exponent * 128));
        const __m512i magnitude = _mm512_set1_epi16(0x7fff);
        for (int i = 0; i < 128; i += 64) {
            const __m512i x = _mm512_loadu_si512(codes + i);
            const __mmask64 nan = _mm512_cmpeq_epi8_mask(
                _mm512_and_si512(x, _mm512_set1_epi8(0x7f)), _mm512_set1_epi8(0x7f));
            Vec v[2];
            simd::e4m3_to_bf16(c, x, &v[0], &v[1]);
            for (int h = 0; h < 2; ++h) {
                if (shift_only && nan == 0) {
                    v[h] = _mm512_mask_add_epi16(v[h], _mm512_test_epi16_mask(v[h], magnitude),
                                                 v[h], shift);
                } else {
                    v[h] = scale_rounded(v[h], _mm512_set1_ps(scale));
                }
                _mm512_storeu_si512(out + i + 32 * h, v[h]);
            }
        }
    }
    static inline void widen_record(const Consts& c, const uint8_t* record, uint16_t* out) {
        float scale[4];
        std::memcpy(scale, record + kLatent, sizeof(scale));
        for (int b = 0; b < 4; ++b) widen_block(c, record + 128 * b, scale[b], out + 128 * b);
        std::memcpy(out + kLatent, record + kLatent + 16, kRope * 2);
    }
};

}  // namespace

extern const Kernels kAvx512Bf16Kernels = {split<V>, merge, finish};

}  // namespace dsa::attention::cpu
