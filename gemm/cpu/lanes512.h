#pragma once
// What the AVX-512 kernels share of V (nt_tile.h): sums of 16 columns.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {
namespace {

struct Lanes512 {
    using Sum = __m512;
    using Raw = __m512i;
    static constexpr int64_t kLanes = 16;
    static constexpr int64_t kLoadK = 64;
    static constexpr int kLoopRows = 15;
    static constexpr int64_t kNnColumns = 64;
    template <class Code>
    static constexpr int64_t kLongColumn = 512;
    template <class Code>
    static constexpr int64_t kRunColumn = 0;
    template <class Code>
    static constexpr int64_t kRaws = sizeof(Code);

    static inline int64_t nn_row(int64_t k) { return k; }
    static inline __m512 zero() { return _mm512_setzero_ps(); }
    static inline __m512 set1(float x) { return _mm512_set1_ps(x); }
    static inline __m512 load_sum(const float* p) { return _mm512_loadu_ps(p); }
    static inline void store_sum(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
    static inline __m512 gather(const float* p, const int32_t* places) {
        return _mm512_i32gather_ps(_mm512_loadu_si512(places), p, 4);
    }
    static inline __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
    static inline __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
    static inline __m512 one_nan(__m512 x) {
        return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                  _mm512_set1_ps(__builtin_nanf("")));
    }

    DSA_INLINE void load_columns(const uint8_t* b, const int64_t* offset, int64_t valid, Raw* out) {
        simd::load_columns<4>(b, offset, valid, out);
    }
    DSA_INLINE void load_columns(const uint16_t* b, const int64_t* offset, int64_t valid,
                                 Raw* out) {
        simd::load_columns(b, offset, valid, out);
        simd::load_columns(b + 32, offset, valid - 32, out + 16);
    }

    static inline void store_columns(float* d, int64_t n, __m512 x, __m512 y) {
        if (n >= 32) {
            _mm512_storeu_ps(d, x);
            _mm512_storeu_ps(d + 16, y);
            return;
        }
        _mm512_mask_storeu_ps(d, simd::mask_16(n), x);
        if (n > 16) _mm512_mask_storeu_ps(d + 16, simd::mask_16(n - 16), y);
    }
    static inline void store_columns(uint16_t* d, int64_t n, __m512 x, __m512 y) {
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(simd::f32_to_bf16(x)),
                                                simd::f32_to_bf16(y), 1);
        if (n >= 32) {
            _mm512_storeu_si512(d, both);
        } else {
            _mm512_mask_storeu_epi16(d, simd::mask_32(n), both);
        }
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
