#pragma once
// Row operations that need AVX-512 F/BW/VL only, shared by the ISA files (static inline).

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/row_scales.h"

namespace dsa::gemm::cpu {

// 16 fp32 to e4m3 codes, as dsa::to_e4m3: nearest even, saturating, NaN stays NaN.
static inline __m128i f32_to_e4m3(__m512 x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(u, 24), _mm512_set1_epi32(0x80));
    const __m512i mag = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(mag, 20), _mm512_set1_epi32(1));
    __m512i code = _mm512_add_epi32(mag, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7ffff)));
    code = _mm512_srli_epi32(_mm512_sub_epi32(code, _mm512_set1_epi32(120 << 23)), 20);
    const __m512 grid = _mm512_add_ps(_mm512_castsi512_ps(mag), _mm512_set1_ps(16384.0F));
    const __mmask16 small = _mm512_cmplt_epi32_mask(mag, _mm512_set1_epi32(0x3c800000));
    code = _mm512_mask_and_epi32(code, small, _mm512_castps_si512(grid), _mm512_set1_epi32(0xff));
    const __mmask16 large = _mm512_cmpge_epi32_mask(mag, _mm512_set1_epi32(0x43e00000));
    code = _mm512_mask_mov_epi32(code, large, _mm512_set1_epi32(0x7e));
    const __mmask16 nan = _mm512_cmpgt_epi32_mask(mag, _mm512_set1_epi32(0x7f800000));
    code = _mm512_mask_mov_epi32(code, nan, _mm512_set1_epi32(0x7f));
    return _mm512_cvtepi32_epi8(_mm512_or_si512(code, sign));
}

static inline void quantize_row(const uint16_t* x, int64_t n, bool ue8m0, uint8_t* q,
                                float* scale) {
    for (int64_t k = 0; k < n; k += 128) {
        const int64_t valid = n - k < 128 ? n - k : 128;
        __m512 absmax = _mm512_set1_ps(1e-4F);
        for (int64_t i = 0; i < valid; i += 16) {
            const __m512 v =
                simd::bf16_to_f32(_mm256_maskz_loadu_epi16(simd::mask_16(valid - i), x + k + i));
            absmax = _mm512_max_ps(_mm512_abs_ps(v), absmax);  // NaN: keeps the second
        }
        scale[k / 128] = e4m3_scale(_mm512_reduce_max_ps(absmax), ue8m0);
        const __m512 divisor = _mm512_set1_ps(scale[k / 128]);
        for (int64_t i = 0; i < valid; i += 16) {
            const __mmask16 mask = simd::mask_16(valid - i);
            const __m512 v = simd::bf16_to_f32(_mm256_maskz_loadu_epi16(mask, x + k + i));
            _mm_mask_storeu_epi8(q + k + i, mask, f32_to_e4m3(_mm512_div_ps(v, divisor)));
        }
    }
}

static inline void quantize_row_int8(const uint16_t* x, int64_t n, int8_t* q, float* scale) {
    for (int64_t k = 0; k < n; k += 128) {
        const int64_t valid = n - k < 128 ? n - k : 128;
        __m512i top = _mm512_setzero_si512();  // fp32 magnitudes order like integers, NaN on top
        const auto load = [&](int64_t i) {
            return simd::bf16_to_f32(_mm256_maskz_loadu_epi16(simd::mask_16(valid - i), x + k + i));
        };
        for (int64_t i = 0; i < valid; i += 16)
            top = _mm512_max_epi32(top, _mm512_castps_si512(_mm512_abs_ps(load(i))));
        const Int8Scale s = int8_scale(_mm512_reduce_max_epi32(top));
        scale[k / 128] = s.scale;
        if (s.inverse == 0.0F) {  // NaN times 0 would be no 0
            for (int64_t i = 0; i < valid; ++i) q[k + i] = 0;
            continue;
        }
        const __m512 inverse = _mm512_set1_ps(s.inverse);
        for (int64_t i = 0; i < valid; i += 16)
            _mm_mask_storeu_epi8(
                q + k + i, simd::mask_16(valid - i),
                _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(load(i), inverse))));
    }
}

static inline void silu_mul(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 mask = simd::mask_16(n - i);
        const __m512 g = simd::bf16_to_f32(_mm256_maskz_loadu_epi16(mask, gate + i));
        const __m512 u = simd::bf16_to_f32(_mm256_maskz_loadu_epi16(mask, up + i));
        const __m512 e = simd::exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), g));
        const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(e, _mm512_set1_ps(1.0F)));
        _mm256_mask_storeu_epi16(out + i, mask, simd::f32_to_bf16(_mm512_mul_ps(silu, u)));
    }
}

}  // namespace dsa::gemm::cpu
