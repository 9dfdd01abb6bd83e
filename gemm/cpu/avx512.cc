// gemm kernels with AVX-512 F/BW/VL/DQ: fp32 FMA, 16 values of k a vector.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/fp16_columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes512.h"
#include "gemm/cpu/nn_tile.h"
#include "gemm/cpu/nt_tile.h"
#include "gemm/cpu/pack_rows.h"
#include "gemm/cpu/peak512.h"
#include "gemm/cpu/rows_avx512.h"
#include "gemm/cpu/widened_by_loads.h"

namespace dsa::gemm::cpu {
namespace {

struct V : Lanes512, WidenedByLoads<V> {
    using Vec = __m512;
    using Element = float;
    struct State {};
    static constexpr int kStepK = 1;
    static constexpr int kRows = 14;
    static constexpr int kPanelBlocks = 1;
    static constexpr int kFewRows = 0;
    static constexpr int64_t kStagedRows = 64;  // measured on Granite Rapids
    template <class Code>
    static constexpr int kBlocksOfOneRow = 2;
    template <class Code>
    static constexpr int64_t kBetweenK = 4;
    template <class Code>
    static constexpr bool kAsksForLines = true;

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
    static inline void pack_row(const Code* a, int64_t valid, float* out) {
        for (int64_t i = 0; i < kBlockK; i += 16) store(out + i, load_b(a + i, valid - i));
    }
    template <class Code>
    static constexpr float kWidened = sizeof(Code) == 1 ? 256.0F : 1.0F;

    // fp16 values less by 2^8: half a vector for each of k.
    DSA_INLINE void load_columns(const uint8_t* b, const int64_t* offset, int64_t valid, Raw* out) {
        load_fp16_columns(b, offset, valid, reinterpret_cast<uint16_t*>(out));
    }
    DSA_INLINE void load_columns(const uint16_t* b, const int64_t* offset, int64_t valid,
                                 Raw* out) {
        Lanes512::load_columns(b, offset, valid, out);
    }
    template <class Code>
    static constexpr int64_t kRaws = 2;

    template <class Code>
    DSA_INLINE Vec widened(const Raw* raw, int i) {
        if constexpr (sizeof(Code) == 1) {  // from memory: half the cost of one from a register
            return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(raw) + i));
        } else {
            const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
            return _mm512_castsi512_ps(i % 2 == 0 ? _mm512_slli_epi32(raw[i / 2], 16)
                                                  : _mm512_and_si512(raw[i / 2], high));
        }
    }

    template <class Code, class Emit>
    DSA_INLINE void widen_rows(const State&, const Code* b, int64_t, int64_t n, const Emit& emit) {
        simd::unrolled<4>([&](auto j)
                              DSA_INLINE_LAMBDA { emit(j, load_b(b + 16 * j, n - 16 * j)); });
    }
    static inline Vec broadcast_a(const uint16_t* a) {
        return _mm512_castsi512_ps(
            _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(*a) << 16)));
    }
};

double multiply_peak(int64_t rounds) {
    return multiply_rounds(rounds, _mm512_set1_ps(1.0F), _mm512_set1_ps(1e-9F), _mm512_setzero_ps(),
                           32.0, [](__m512 acc, __m512 a, __m512 b) { return V::dot(acc, a, b); });
}

}  // namespace

extern const Kernels kAvx512Kernels = {sizeof(V::Element),   kTileRows,
                                       pack_rows<V>,         nt_tile<V, uint8_t>,
                                       nt_tile<V, uint16_t>, nn_tile<V, uint8_t>,
                                       nn_tile<V, uint16_t>, quantize_row,
                                       quantize_row_int8,    silu_mul,
                                       read_lines,           multiply_peak};

}  // namespace dsa::gemm::cpu
