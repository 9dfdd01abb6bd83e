#pragma once
// What the AVX2 kernels share: sums of 8 columns.

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"

namespace dsa::gemm::cpu {
namespace {

struct Lanes256 {
    using Sum = __m256;
    static constexpr int64_t kLanes = 8;
    static constexpr int kRows = 6;
    static constexpr int kPanelBlocks = 1;

    static inline __m256 zero() { return _mm256_setzero_ps(); }
    static inline __m256 set1(float x) { return _mm256_set1_ps(x); }
    static inline __m256 load_sum(const float* p) { return _mm256_loadu_ps(p); }
    static inline void store_sum(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
    static inline __m256 gather(const float* p, const int32_t* places) {
        return _mm256_i32gather_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places)),
                                   4);
    }
    static inline __m256 mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
    static inline __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
    static inline __m256 one_nan(__m256 x) {
        return _mm256_blendv_ps(x, _mm256_set1_ps(__builtin_nanf("")),
                                _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    }

    static inline void store_columns(float* d, int64_t n, __m256 x, __m256 y) {
        if (n >= 16) {
            _mm256_storeu_ps(d, x);
            _mm256_storeu_ps(d + 8, y);
            return;
        }
        alignas(32) float all[16];
        _mm256_store_ps(all, x);
        _mm256_store_ps(all + 8, y);
        __builtin_memcpy(d, all, static_cast<size_t>(n) * 4);
    }
    static inline void store_columns(uint16_t* d, int64_t n, __m256 x, __m256 y) {
        const __m256i both = _mm256_set_m128i(simd256::f32_to_bf16(y), simd256::f32_to_bf16(x));
        if (n >= 16) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(d), both);
            return;
        }
        alignas(32) uint16_t all[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(all), both);
        __builtin_memcpy(d, all, static_cast<size_t>(n) * 2);
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
