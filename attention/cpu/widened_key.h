#pragma once
// A KV record for the vector kernels. It stands for bf16 values, so a widened key is 576 bf16,
// exact: of each 64 dims of the latent the even ones, then the odd ones (the low and the high bytes
// of the words that 64 codes are), then RoPE. Everything is static inline: internal to the ISA
// file.

#include <cstdint>

#include "attention/cpu/kernels.h"
#include "base/avx512.h"

namespace dsa::attention::cpu {

// e4m3 codes to bf16 by a shift and an addition; of the codes 0 .. 7 (zero and the subnormals) by a
// table. exponent is added to both.
struct Widening {
    __m512i bias;        // what a normal code's exponent lacks
    __m512i subnormals;  // words 0 .. 7
};

static inline Widening widening(int exponent) {
    // m * 2^-9
    const __m512i table = _mm512_castsi128_si512(
        _mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
    const __m512i shift = _mm512_set1_epi16(static_cast<int16_t>(exponent * 128));
    return {_mm512_add_epi16(shift, _mm512_set1_epi16(120 * 128)),
            _mm512_mask_add_epi16(table, 0xfe, table, shift)};
}

// Words whose low (kHigh: high) byte is a code, not NaN.
template <bool kHigh>
static inline __m512i widen_bytes(const Widening& w, __m512i words) {
    const __m512i magnitude =
        _mm512_and_si512(kHigh ? _mm512_srli_epi16(words, 8) : words, _mm512_set1_epi16(0x7f));
    const __mmask32 subnormal = _mm512_cmplt_epi16_mask(magnitude, _mm512_set1_epi16(8));
    const __m512i x =
        _mm512_mask_permutexvar_epi16(_mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), w.bias),
                                      subnormal, magnitude, w.subnormals);
    const __m512i sign = _mm512_set1_epi16(static_cast<int16_t>(0x8000));
    return _mm512_ternarylogic_epi32(x, kHigh ? words : _mm512_slli_epi16(words, 8), sign,
                                     0xf8);  // a | (b & c)
}

// Whether the four scales of a record only move exponents, with bf16's range to spare on both
// sides.
static inline bool powers_of_two(const uint8_t* scales) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
    const __mmask8 exact = _mm_testn_epi32_mask(x, _mm_set1_epi32(0x007fffff));
    const __mmask8 above = _mm_cmpgt_epi32_mask(x, _mm_set1_epi32(63 << 23));
    return (_mm_mask_cmplt_epi32_mask(exact & above, x, _mm_set1_epi32(191 << 23)) & 0xfU) == 0xfU;
}

// bf16(x * scale) of 32 bf16.
static inline __m512i scale_rounded(__m512i x, __m512 scale) {
    const __m512 low = simd::bf16_to_f32(_mm512_castsi512_si256(x));
    const __m512 high = simd::bf16_to_f32(_mm512_extracti64x4_epi64(x, 1));
    return _mm512_inserti64x4(_mm512_castsi256_si512(simd::f32_to_bf16(_mm512_mul_ps(low, scale))),
                              simd::f32_to_bf16(_mm512_mul_ps(high, scale)), 1);
}

// The latent of a record with any scales and codes.
__attribute__((noinline)) static void widen_latent_by_multiplication(const uint8_t* record,
                                                                     uint16_t* out) {
    const Widening w = widening(0);
    const __m512i largest = _mm512_set1_epi16(0x7f);
    const __m512i nan = _mm512_set1_epi16(0x7fc0);
    for (int64_t d = 0; d < kLatent; d += 64) {
        float scale = 0.0F;
        __builtin_memcpy(&scale, record + kLatent + d / 128 * 4, 4);
        const __m512i codes = _mm512_loadu_si512(record + d);
        const __m512i low = _mm512_and_si512(codes, largest);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(codes, 8), largest);
        const __m512i even = _mm512_mask_mov_epi16(widen_bytes<false>(w, codes),
                                                   _mm512_cmpeq_epi16_mask(low, largest), nan);
        const __m512i odd = _mm512_mask_mov_epi16(widen_bytes<true>(w, codes),
                                                  _mm512_cmpeq_epi16_mask(high, largest), nan);
        _mm512_storeu_si512(out + d, scale_rounded(even, _mm512_set1_ps(scale)));
        _mm512_storeu_si512(out + d + 32, scale_rounded(odd, _mm512_set1_ps(scale)));
    }
}

// 656 bytes to a widened key. A scale that is a power of two is added to the exponents, which is
// exact while nothing gets near the ends of bf16's range.
static inline void widen_record(const uint8_t* record, uint16_t* out) {
    const uint8_t* scales = record + kLatent;
    const uint8_t* rope = scales + 16;
    _mm512_storeu_si512(out + kLatent, _mm512_loadu_si512(rope));
    _mm512_storeu_si512(out + kLatent + 32, _mm512_loadu_si512(rope + 64));
    const __m512i largest = _mm512_set1_epi8(0x7f);
    __m512i top = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int64_t block = 0; block < 4; ++block) {
        // A scale that is no power of two is dealt with below.
        const Widening w =
            widening(((scales[4 * block + 3] << 1) | (scales[4 * block + 2] >> 7)) - 127);
#pragma GCC unroll 2
        for (int64_t d = 128 * block; d < 128 * (block + 1); d += 64) {
            const __m512i codes = _mm512_loadu_si512(record + d);
            top = _mm512_max_epu8(top, _mm512_and_si512(codes, largest));
            _mm512_storeu_si512(out + d, widen_bytes<false>(w, codes));
            _mm512_storeu_si512(out + d + 32, widen_bytes<true>(w, codes));
        }
    }
    if (!powers_of_two(scales) || _mm512_cmpeq_epi8_mask(top, largest) != 0)
        widen_latent_by_multiplication(record, out);
}

}  // namespace dsa::attention::cpu
