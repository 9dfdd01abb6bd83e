#pragma once
// Building blocks of the AVX2 kernels. For ISA files only: everything is static inline, so that no
// copy of it can be picked by the linker for another file. Counterparts of base/avx512.h.

#include <immintrin.h>

#include <cstdint>

namespace dsa::simd256 {

// 8 bf16 -> fp32.
static inline __m256 bf16_to_f32(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

// 8 fp32 -> bf16, nearest even; NaN stays NaN. Same bits as dsa::to_bf16.
static inline __m128i f32_to_bf16(__m256 x) {
    const __m256i u = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256i r = _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan));
    const __m256i words = _mm256_packus_epi32(_mm256_srli_epi32(r, 16), _mm256_setzero_si256());
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(words, 0x08));
}

// 8 e4m3 codes to fp32, exact: code << 7 read as fp16, times 2^8. NaN codes become NaN.
static inline __m256 e4m3_to_f32(__m128i codes) {
    const __m128i wide = _mm_cvtepi8_epi16(codes);
    const __m128i magnitude = _mm_and_si128(wide, _mm_set1_epi16(0x7f));
    const __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
    __m128i h =
        _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16(static_cast<int16_t>(0xbfff)));
    h = _mm_or_si128(h, _mm_and_si128(nan, _mm_set1_epi16(0x7e00)));
    return _mm256_mul_ps(_mm256_cvtph_ps(h), _mm256_set1_ps(256.0F));
}

// The first n (at most 32) bytes at p, zeros behind; never reads beyond them.
static inline __m256i load_bytes(const void* p, int64_t n) {
    if (n >= 32) return _mm256_loadu_si256(static_cast<const __m256i*>(p));
    alignas(32) uint8_t bytes[32] = {};
    if (n > 0) __builtin_memcpy(bytes, p, static_cast<size_t>(n));
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
}

// 8 x 8 dwords, in place.
static inline void transpose_8x8(__m256i* v) {
    __m256i a[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    __m256i b[8];
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {
            b[i + 2 * j] = _mm256_unpacklo_epi64(a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm256_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    // b[i + c] has columns c and c + 4 of rows i .. i + 3, 128 bits each.
    for (int c = 0; c < 4; ++c) {
        v[c] = _mm256_permute2x128_si256(b[c], b[c + 4], 0x20);
        v[c + 4] = _mm256_permute2x128_si256(b[c], b[c + 4], 0x31);
    }
}

// fp16 values of e4m3 codes less by 2^8, of which those of the NaN codes become NaN.
__attribute__((noinline, cold)) static void set_fp16_nans(__m256i* values, int n) {
    for (int i = 0; i < n; ++i) {
        const __m256i magnitude = _mm256_and_si256(values[i], _mm256_set1_epi16(0x7fff));
        const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f << 7));
        values[i] = _mm256_or_si256(values[i], _mm256_and_si256(nan, _mm256_set1_epi16(0x7e00)));
    }
}

// 32 e4m3 codes of 8 columns to fp16 less by 2^8 (code << 7: exact), transposed: out[2 * j + i]
// has the columns' values 2 * j + i in the low half, 2 * j + i + 16 in the high one. In memory, for
// conversions to fp32 that load.
static inline void e4m3_columns_to_fp16(const __m256i* codes, __m256i* out) {
    __m256i a[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi16(codes[i], codes[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi16(codes[i], codes[i + 1]);
    }
    __m256i b[8];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            b[i + 2 * j] = _mm256_unpacklo_epi32(a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm256_unpackhi_epi32(a[i + j], a[i + j + 2]);
        }
    // A product with 128 shifts and extends the sign over the bit above the magnitude.
    const __m256i even = _mm256_set1_epi16(0x0080);
    const __m256i odd = _mm256_set1_epi16(static_cast<int16_t>(0x8000));
    const __m256i fp16 = _mm256_set1_epi16(static_cast<int16_t>(0xbfff));
    const __m256i magnitude = _mm256_set1_epi8(0x7f);
    __m256i largest = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        const __m256i c = j % 2 == 0 ? _mm256_unpacklo_epi64(b[j / 2], b[4 + j / 2])
                                     : _mm256_unpackhi_epi64(b[j / 2], b[4 + j / 2]);
        largest = _mm256_max_epu8(largest, _mm256_and_si256(c, magnitude));
        out[2 * j] = _mm256_and_si256(_mm256_maddubs_epi16(even, c), fp16);
        out[2 * j + 1] = _mm256_and_si256(_mm256_maddubs_epi16(odd, c), fp16);
    }
    asm volatile("" ::"r"(out) : "memory");  // or g++ would keep some in registers
    const __m256i nan = _mm256_cmpeq_epi8(largest, magnitude);
    if (__builtin_expect(_mm256_testz_si256(nan, nan) == 0, 0)) set_fp16_nans(out, 16);
}

// exp(x), as simd::exp_ps.
static inline __m256 exp_ps(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-87.0F), x);  // the second operand is returned for NaN
    x = _mm256_min_ps(_mm256_set1_ps(88.0F), x);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504F)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752F), x);  // ln 2 in two parts
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6F), r);
    __m256 p = _mm256_set1_ps(1.0F / 720.0F);  // Taylor series; |r| <= ln(2) / 2
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 120.0F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 24.0F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 6.0F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

}  // namespace dsa::simd256
