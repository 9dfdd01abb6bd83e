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

// Two vectors of fp16 values in the low and high half of each dword -> fp32, a dword a lane.
static inline void fp16_pairs_to_f32(__m256i pairs, __m256* low, __m256* high) {
    const __m256i words = _mm256_packus_epi32(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff)),
                                              _mm256_srli_epi32(pairs, 16));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    *low = _mm256_cvtph_ps(_mm256_castsi256_si128(ordered));
    *high = _mm256_cvtph_ps(_mm256_extracti128_si256(ordered, 1));
}

// Four codes c0 .. c3 in each dword to fp32 times 2^-8: emit(d, lanes) for each. NaN stays NaN.
template <class Emit>
static inline void e4m3_dword_to_f32_over_256(__m256i codes, const Emit& emit) {
    const __m256i fp16 = _mm256_set1_epi16(static_cast<int16_t>(0xbfff));  // less the copied sign
    __m256i even = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 1), fp16);
    __m256i odd = _mm256_and_si256(_mm256_srai_epi16(codes, 1),
                                   _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    const __m256i top = _mm256_set1_epi8(0x7f);
    const __m256i nan = _mm256_cmpeq_epi8(_mm256_and_si256(codes, top), top);
    if (__builtin_expect(_mm256_testz_si256(nan, nan) == 0, 0)) {
        const __m256i bits = _mm256_set1_epi16(0x7e00);
        even = _mm256_or_si256(
            even, _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(nan, 8), 8), bits));
        odd = _mm256_or_si256(odd, _mm256_and_si256(_mm256_srai_epi16(nan, 8), bits));
    }
    __m256 v[4];
    fp16_pairs_to_f32(even, &v[0], &v[2]);
    fp16_pairs_to_f32(odd, &v[1], &v[3]);
#pragma GCC unroll 4
    for (int d = 0; d < 4; ++d) emit(d, v[d]);
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
