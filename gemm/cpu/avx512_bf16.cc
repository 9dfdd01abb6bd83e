// gemm kernels with VDPBF16PS: both operands bf16 (e4m3 widens exactly), 32 values of k a vector.

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
    using Vec = __m512i;
    using Element = uint16_t;
    using State = simd::E4m3ToBf16;
    static constexpr int kStepK = 2;

    static inline State load_state() { return simd::load_e4m3_to_bf16(); }
    static inline Vec load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    static inline void store(uint16_t* p, Vec v) { _mm512_storeu_si512(p, v); }
    static inline Vec load_a(const uint16_t* p, int64_t valid) {
        if (valid >= 32) return _mm512_loadu_si512(p);
        if (valid <= 0) return _mm512_setzero_si512();
        return _mm512_maskz_loadu_epi16(simd::mask_32(valid), p);
    }
    static inline Vec broadcast(const uint16_t* p) { return simd::broadcast_pair(p); }
    static inline Vec broadcast_a(const uint16_t* p) { return broadcast(p); }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return simd::dot_bf16(acc, a, b); }

    template <class Code>
    static inline void widen_row(const uint16_t* a, int64_t k, uint16_t* out) {
        for (int64_t i = 0; i < (k + 127) / 128 * 128; i += 32) {
            Vec v = load_a(a + i, k - i);
            if constexpr (sizeof(Code) == 1) v = simd::order_as_e4m3_pairs(v);
            _mm512_storeu_si512(out + i, v);
        }
    }
    template <class Emit>
    static inline void widen_columns(const State& state, const uint8_t* b, const int64_t* offset,
                                     int64_t valid, const Emit& emit) {
        simd::e4m3_columns_to_bf16(state, b, offset, valid, emit);
    }
    template <class Emit>
    static inline void widen_columns(const State&, const uint16_t* b, const int64_t* offset,
                                     int64_t valid, const Emit& emit) {
        simd::bf16_column_pairs(b, offset, valid, emit);
    }

    // nn: rows k and k + 1 of B, interleaved.
    static inline void load_row(const State& state, const uint8_t* b, int64_t n, Vec* out) {
        simd::e4m3_to_bf16(state, _mm512_maskz_loadu_epi8(simd::mask_64(n), b), &out[0], &out[1]);
    }
    static inline void load_row(const State&, const uint16_t* b, int64_t n, Vec* out) {
        out[0] = load_a(b, n);
        out[1] = load_a(b + 32, n - 32);
    }
    template <class Code>
    static inline void widen_rows(const State& state, const Code* b, int64_t ldb, int64_t n,
                                  uint16_t* out) {
        alignas(64) static constexpr uint16_t kLow[32] = {
            0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
        const __m512i low = _mm512_load_si512(kLow);
        const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
        Vec even[2];
        Vec odd[2];
        load_row(state, b, n, even);
        load_row(state, b + ldb, n, odd);
        for (int i = 0; i < 2; ++i) {
            _mm512_storeu_si512(out + 64 * i, _mm512_permutex2var_epi16(even[i], low, odd[i]));
            _mm512_storeu_si512(out + 64 * i + 32,
                                _mm512_permutex2var_epi16(even[i], high, odd[i]));
        }
    }
};

void widen_e4m3(const uint8_t* x, int64_t n, uint16_t* y) {
    const V::State state = V::load_state();
    for (int64_t i = 0; i < n; i += 64) {
        __m512i v[2];
        V::load_row(state, x + i, n - i, v);
        for (int h = 0; h < 2; ++h)
            if (n - i > 32 * h)
                _mm512_mask_storeu_epi16(y + i + 32 * h, simd::mask_32(n - i - 32 * h), v[h]);
    }
}

}  // namespace

extern const Kernels kAvx512Bf16Kernels = {nt_tile<V, uint8_t>,
                                           nt_tile<V, uint16_t>,
                                           nn_tile<V, uint8_t>,
                                           nn_tile<V, uint16_t>,
                                           widen_e4m3,
                                           quantize_row,
                                           silu_mul};

}  // namespace dsa::gemm::cpu
