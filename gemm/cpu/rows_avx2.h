#pragma once
// Row operations with AVX2, as in rows_avx512.h. Tails go through a small buffer.

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
#include "gemm/cpu/row_scales.h"

namespace dsa::gemm::cpu::avx2 {

// 8 fp32 to e4m3 codes in the low 8 bytes, as dsa::to_e4m3: nearest even, saturating, NaN stays
// NaN.
static inline __m128i f32_to_e4m3(__m256 x) {
    const __m256i u = _mm256_castps_si256(x);
    const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(u, 24), _mm256_set1_epi32(0x80));
    const __m256i mag = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(mag, 20), _mm256_set1_epi32(1));
    __m256i code = _mm256_add_epi32(mag, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7ffff)));
    code = _mm256_srli_epi32(_mm256_sub_epi32(code, _mm256_set1_epi32(120 << 23)), 20);
    const __m256 grid = _mm256_add_ps(_mm256_castsi256_ps(mag), _mm256_set1_ps(16384.0F));
    const __m256i subnormal = _mm256_and_si256(_mm256_castps_si256(grid), _mm256_set1_epi32(0xff));
    code =
        _mm256_blendv_epi8(code, subnormal, _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3c800000), mag));
    code = _mm256_blendv_epi8(code, _mm256_set1_epi32(0x7e),
                              _mm256_cmpgt_epi32(mag, _mm256_set1_epi32(0x43dfffff)));
    code = _mm256_blendv_epi8(code, _mm256_set1_epi32(0x7f),
                              _mm256_cmpgt_epi32(mag, _mm256_set1_epi32(0x7f800000)));
    code = _mm256_or_si256(code, sign);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    return _mm_packus_epi16(words, words);
}

// 8 bf16 values as fp32: those of n that there are, zeros behind.
static inline __m256 load_bf16(const uint16_t* p, int64_t n) {
    if (n >= 8) return simd256::bf16_to_f32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return simd256::bf16_to_f32(_mm256_castsi256_si128(simd256::load_bytes(p, 2 * n)));
}

// The first n (at most 8) bytes or 16-bit values.
static inline void store_bytes(void* p, __m128i v, int64_t bytes) {
    alignas(16) uint8_t all[16];
    _mm_store_si128(reinterpret_cast<__m128i*>(all), v);
    __builtin_memcpy(p, all, static_cast<size_t>(bytes));
}

static inline float largest_of_8(__m256 v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

static inline void quantize_row(const uint16_t* x, int64_t n, bool ue8m0, uint8_t* q,
                                float* scale) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (int64_t k = 0; k < n; k += 128) {
        const int64_t valid = n - k < 128 ? n - k : 128;
        __m256 absmax = _mm256_set1_ps(1e-4F);
        for (int64_t i = 0; i < valid; i += 8)  // NaN: keeps the second
            absmax =
                _mm256_max_ps(_mm256_and_ps(load_bf16(x + k + i, valid - i), magnitude), absmax);
        scale[k / 128] = e4m3_scale(largest_of_8(absmax), ue8m0);
        const __m256 divisor = _mm256_set1_ps(scale[k / 128]);
        for (int64_t i = 0; i < valid; i += 8)
            store_bytes(q + k + i,
                        f32_to_e4m3(_mm256_div_ps(load_bf16(x + k + i, valid - i), divisor)),
                        valid - i < 8 ? valid - i : 8);
    }
}

static inline void quantize_row_int8(const uint16_t* x, int64_t n, int8_t* q, float* scale) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int64_t k = 0; k < n; k += 128) {
        const int64_t valid = n - k < 128 ? n - k : 128;
        __m256i top = _mm256_setzero_si256();  // fp32 magnitudes order like integers, NaN on top
        for (int64_t i = 0; i < valid; i += 8)
            top = _mm256_max_epi32(
                top,
                _mm256_and_si256(_mm256_castps_si256(load_bf16(x + k + i, valid - i)), magnitude));
        alignas(32) int32_t lanes[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), top);
        int32_t bits = 0;
        for (const int32_t lane : lanes) bits = lane > bits ? lane : bits;
        const Int8Scale s = int8_scale(bits);
        scale[k / 128] = s.scale;
        if (s.inverse == 0.0F) {  // NaN times 0 would be no 0
            for (int64_t i = 0; i < valid; ++i) q[k + i] = 0;
            continue;
        }
        const __m256 inverse = _mm256_set1_ps(s.inverse);
        for (int64_t i = 0; i < valid; i += 8) {
            const __m256i v =
                _mm256_cvtps_epi32(_mm256_mul_ps(load_bf16(x + k + i, valid - i), inverse));
            const __m128i words =
                _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
            store_bytes(q + k + i, _mm_packs_epi16(words, words), valid - i < 8 ? valid - i : 8);
        }
    }
}

static inline void silu_mul(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 g = load_bf16(gate + i, n - i);
        const __m256 u = load_bf16(up + i, n - i);
        const __m256 e = simd256::exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), g));
        const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(e, _mm256_set1_ps(1.0F)));
        store_bytes(out + i, simd256::f32_to_bf16(_mm256_mul_ps(silu, u)),
                    2 * (n - i < 8 ? n - i : 8));
    }
}

}  // namespace dsa::gemm::cpu::avx2
