// gemm kernels with AVX-512 F/BW/VL/DQ: fp32 FMA, 16 values of k a vector.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/nn_tile.h"
#include "gemm/cpu/nt_tile.h"
#include "gemm/cpu/rows_avx512.h"

namespace dsa::gemm::cpu {
namespace {

struct V {
    using Vec = __m512;
    using Element = float;
    struct State {};
    static constexpr int kStepK = 1;

    static inline State load_state() { return {}; }
    static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
    static inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
    static inline Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return _mm512_fmadd_ps(a, b, acc); }

    static inline Vec load_b(const uint16_t* p, int64_t valid) {
        if (valid >= 16)
            return simd::bf16_to_f32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        if (valid <= 0) return _mm512_setzero_ps();
        return simd::bf16_to_f32(_mm256_maskz_loadu_epi16(simd::mask_16(valid), p));
    }
    static inline Vec load_b(const uint8_t* p, int64_t valid) {
        if (valid >= 16)
            return simd::e4m3_to_f32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        if (valid <= 0) return _mm512_setzero_ps();
        return simd::e4m3_to_f32(_mm_maskz_loadu_epi8(simd::mask_16(valid), p));
    }

    template <class Code>
    static inline void widen_row(const uint16_t* a, int64_t k, float* out) {
        for (int64_t i = 0; i < (k + 127) / 128 * 128; i += 16)
            _mm512_storeu_ps(out + i, load_b(a + i, k - i));
    }
    template <class Emit>
    static inline void widen_columns(const State&, const uint8_t* b, const int64_t* offset,
                                     int64_t valid, const Emit& emit) {
        simd::e4m3_columns_to_f32(b, offset, valid, emit);
    }
    template <class Emit>
    static inline void widen_columns(const State&, const uint16_t* b, const int64_t* offset,
                                     int64_t valid, const Emit& emit) {
        const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
        simd::bf16_column_pairs(b, offset, valid, [&](int64_t step, __m512i pair) {
            emit(2 * step, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
            emit(2 * step + 1, _mm512_castsi512_ps(_mm512_and_si512(pair, high)));
        });
    }

    template <class Code>
    static inline void widen_rows(const State&, const Code* b, int64_t, int64_t n, float* out) {
        for (int i = 0; i < 4; ++i) _mm512_storeu_ps(out + 16 * i, load_b(b + 16 * i, n - 16 * i));
    }
    static inline Vec broadcast_a(const uint16_t* a) {
        return _mm512_castsi512_ps(
            _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(*a) << 16)));
    }
};

void widen_e4m3(const uint8_t* x, int64_t n, uint16_t* y) {
    for (int64_t i = 0; i < n; i += 16)
        _mm256_mask_storeu_epi16(y + i, simd::mask_16(n - i),
                                 simd::f32_to_bf16(V::load_b(x + i, n - i)));
}

}  // namespace

extern const Kernels kAvx512Kernels = {nt_tile<V, uint8_t>,
                                       nt_tile<V, uint16_t>,
                                       nn_tile<V, uint8_t>,
                                       nn_tile<V, uint16_t>,
                                       widen_e4m3,
                                       quantize_row,
                                       silu_mul};

}  // namespace dsa::gemm::cpu
