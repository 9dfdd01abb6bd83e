#pragma once
// Columns of e4m3 as fp16 in memory, with AVX-512 F/BW/VL/DQ: conversions to fp32 that load cost no
// shuffle, and take subnormals without a penalty. Everything is static inline: internal to the ISA
// file.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "base/unrolled.h"

namespace dsa::gemm::cpu {
namespace {

// fp16 values of e4m3 codes less by 2^8, of which those of the NaN codes become NaN.
__attribute__((noinline, cold)) void set_fp16_nans(uint16_t* values, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        if ((values[i] & 0x7fff) == 0x7f << 7) values[i] |= 0x7e00;
}

// 64 e4m3 codes of each of 16 columns, load(j), to fp16 less by 2^8 (code << 7: exact), transposed:
// out [64][16], aligned to 64 bytes.
template <class Load>
DSA_INLINE void transpose_to_fp16(const Load& load, uint16_t* out) {
    // A product with 128 shifts and extends the sign over the bit above the magnitude.
    const __m512i even = _mm512_set1_epi16(0x0080);
    const __m512i odd = _mm512_set1_epi16(static_cast<int16_t>(0x8000));
    const __m512i fp16 = _mm512_set1_epi16(static_cast<int16_t>(0xbfff));
    const __m512i magnitude = _mm512_set1_epi8(0x7f);
    __m512i largest = _mm512_setzero_si512();
    __m512i quarters[2][8];  // codes 0 .. 15 of columns j and j + 8, then 16 .. 31; and 32 behind
    simd::unrolled<8>([&](auto j) DSA_INLINE_LAMBDA {
        const __m512i x = simd::in_register(load(j));
        const __m512i y = simd::in_register(load(j + 8));
        const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        quarters[0][j] = _mm512_permutex2var_epi64(x, first, y);
        quarters[1][j] = _mm512_permutex2var_epi64(x, second, y);
    });
    const auto store = [&](uint16_t* to, __m512i values) DSA_INLINE_LAMBDA {
        const __m512i v = _mm512_and_si512(values, fp16);
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(v));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + 16 * 16),
                           _mm512_extracti64x4_epi64(v, 1));
    };
    simd::unrolled<2>([&](auto half) DSA_INLINE_LAMBDA {
        const __m512i* x = quarters[half];
        __m512i b[8];  // pairs of pairs of codes of columns 0 .. 3 and 8 .. 11, then of the others
        simd::transpose_four<2>(x[0], x[1], x[2], x[3], b);
        simd::transpose_four<2>(x[4], x[5], x[6], x[7], b + 4);
        simd::unrolled<8>([&](auto i) DSA_INLINE_LAMBDA {
            const __m512i pairs = i % 2 == 0 ? simd::unpack_low<8>(b[i / 2], b[4 + i / 2])
                                             : simd::unpack_high<8>(b[i / 2], b[4 + i / 2]);
            largest = _mm512_max_epu8(largest, _mm512_and_si512(pairs, magnitude));
            uint16_t* to = out + 16 * (32 * half + 2 * i);
            store(to, _mm512_maddubs_epi16(even, pairs));
            store(to + 16, _mm512_maddubs_epi16(odd, pairs));
        });
    });
    asm volatile("" ::"r"(out) : "memory");  // or g++ would keep some in registers
    if (__builtin_expect(_mm512_cmpeq_epi8_mask(largest, magnitude) != 0, 0))
        set_fp16_nans(out, 64 * 16);
}

// The same of 64 codes from p + offset[j] on, valid of them, zeros behind.
DSA_INLINE void load_fp16_columns(const uint8_t* p, const int64_t* offset, int64_t valid,
                                  uint16_t* out) {
    if (valid >= 64)
        return transpose_to_fp16([&](int j) { return _mm512_loadu_si512(p + offset[j]); }, out);
    const __mmask64 mask = simd::mask_64(valid > 0 ? valid : 0);
    transpose_to_fp16([&](int j) { return _mm512_maskz_loadu_epi8(mask, p + offset[j]); }, out);
}

}  // namespace
}  // namespace dsa::gemm::cpu
