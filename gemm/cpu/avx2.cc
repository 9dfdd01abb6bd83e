// gemm kernels with AVX2, FMA and F16C: fp32 FMA, 8 columns a vector; int8 products as 16-bit
// pairs.

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
#include "gemm/cpu/int8_avx2.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes256.h"
#include "gemm/cpu/nn_tile.h"
#include "gemm/cpu/nt_tile.h"
#include "gemm/cpu/pack_rows.h"
#include "gemm/cpu/panel_avx2.h"
#include "gemm/cpu/read_lines.h"
#include "gemm/cpu/rows_avx2.h"
#include "gemm/cpu/widened_by_loads.h"

namespace dsa::gemm::cpu {
namespace {

using avx2::load_bf16;

struct V : Lanes256, WidenedByLoads<V> {
    using Vec = __m256;
    using Element = float;
    using Raw = __m256i;
    struct State {};
    static constexpr int kFewRows = 0;
    static constexpr int64_t kStagedRows = 16;  // measured on Granite Rapids
    static constexpr int kStepK = 1;
    static constexpr int64_t kLoadK = 32;
    template <class Code>
    static constexpr int64_t kLongColumn = sizeof(Code) == 1 ? 512 : 1536;
    template <class Code>
    static constexpr int kBlocksOfOneRow = 4;
    template <class Code>
    static constexpr int64_t kBetweenK = 16;
    template <class Code>
    static constexpr bool kAsksForLines = sizeof(Code) == 2;
    template <class Code>
    static constexpr int64_t kRunColumn = sizeof(Code) == 1 ? 4096 : 1536;
    template <class Code>
    static constexpr int64_t kRaws = 2;
    template <class Code>
    static constexpr float kWidened = sizeof(Code) == 1 ? 256.0F : 1.0F;

    static inline State load_state() { return {}; }
    static inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
    static inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
    static inline Vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static inline __m256 dot(__m256 acc, Vec a, Vec b) { return _mm256_fmadd_ps(a, b, acc); }

    static constexpr int kLoopRows = 4;
    template <int kMany>
    static inline void multiply(const float* a, const float* next_a, const float* b, int64_t num_k,
                                Sum* acc) {
        multiply_floats<kMany>(a, next_a, b, num_k, acc);
    }

    // 8 values, those of `valid` that there are.
    static inline Vec widen_8(const uint16_t* p, int64_t valid) {
        return load_bf16(p, valid > 0 ? valid : 0);
    }
    static inline Vec widen_8(const uint8_t* p, int64_t valid) {
        if (valid >= 8)
            return simd256::e4m3_to_f32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        return simd256::e4m3_to_f32(_mm256_castsi256_si128(simd256::load_bytes(p, valid)));
    }
    // In the order of k of widen(): the two halves of each 32 in turn.
    template <class Code>
    static inline void pack_row(const Code* a, int64_t valid, float* out) {
        for (int64_t i = 0; i < kBlockK; i += 32)
            for (int64_t j = i; j < i + 16; j += 8, out += 16) {
                const Vec x = widen_8(a + j, valid - j);
                const Vec y = widen_8(a + j + 16, valid - j - 16);
                const Vec low = _mm256_unpacklo_ps(x, y);
                const Vec high = _mm256_unpackhi_ps(x, y);
                store(out, _mm256_permute2f128_ps(low, high, 0x20));
                store(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
            }
    }

    static constexpr int64_t kNnColumns = 16;
    static inline int64_t nn_row(int64_t k) { return k / 32 * 32 + k % 2 * 16 + k % 32 / 2; }
    template <class Code, class Emit>
    static inline void widen_rows(const State&, const Code* b, int64_t, int64_t n,
                                  const Emit& emit) {
        simd::unrolled<2>([&](auto j)
                              DSA_INLINE_LAMBDA { emit(j, widen_8(b + 8 * j, n - 8 * j)); });
    }
    static inline Vec broadcast_a(const uint16_t* a) {
        return _mm256_castsi256_ps(
            _mm256_set1_epi32(static_cast<int>(static_cast<uint32_t>(*a) << 16)));
    }

    // fp16 values less by 2^8, one vector for (x0, x16) and (x1, x17) each of every two of k.
    static inline void load_columns(const uint8_t* b, const int64_t* offset, int64_t valid,
                                    Raw* out) {
        __m256i codes[8];
        for (int j = 0; j < 8; ++j) codes[j] = simd256::load_bytes(b + offset[j], valid);
        simd256::e4m3_columns_to_fp16(codes, out);
    }
    // Columns' (x0, x1), then (x16, x17), and so on.
    static inline void load_columns(const uint16_t* b, const int64_t* offset, int64_t valid,
                                    Raw* out) {
        for (int half = 0; half < 2; ++half) {
            Raw pairs[8];
            for (int j = 0; j < 8; ++j)
                pairs[j] = simd256::load_bytes(b + offset[j] + 16 * half, 2 * (valid - 16 * half));
            simd256::transpose_8x8(pairs);
            for (int j = 0; j < 8; ++j) out[2 * j + half] = pairs[j];
        }
    }
    template <class Code>
    static inline Vec widened(const Raw* raw, int i) {
        if constexpr (sizeof(Code) == 1) {  // from memory: half the cost of one from a register
            return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(raw) + i));
        } else {
            const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
            return _mm256_castsi256_ps(i < 2 ? _mm256_slli_epi32(raw[i % 2], 16)
                                             : _mm256_and_si256(raw[i % 2], high));
        }
    }
};

uint64_t read(const uint8_t* p, int64_t n, int64_t ahead) {
    __m256i sum[4] = {};
    for_each_line(p, n, ahead, [&](const uint8_t* line, int i) {
        __m256i* to = sum + i % 2 * 2;
        for (int j = 0; j < 2; ++j)
            to[j] = _mm256_add_epi64(
                to[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + 32 * j)));
    });
    alignas(32) uint64_t lanes[4];
    _mm256_store_si256(
        reinterpret_cast<__m256i*>(lanes),
        _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3])));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

double multiply_peak(int64_t rounds) {
    __m256 acc[12];
#pragma GCC unroll 12
    for (auto& x : acc) {
        x = _mm256_setzero_ps();
        asm volatile("" : "+x"(x));  // or the compiler would see 12 equal chains
    }
    const __m256 a = _mm256_set1_ps(1.0F);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
        for (auto& x : acc) x = _mm256_fmadd_ps(a, a, x);
    }
#pragma GCC unroll 12
    for (auto& x : acc) asm volatile("" ::"x"(x));
    return static_cast<double>(rounds) * 12.0 * 16.0;
}

double int8_peak(int64_t rounds) {
    Int8V::IntSum acc[10];
    __m256i a = _mm256_set1_epi16(1);
#pragma GCC unroll 10
    for (auto& x : acc) {
        x = Int8V::set1_int(0);
        asm volatile("" : "+x"(x));
    }
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 10
        for (auto& x : acc) {
            asm volatile("" : "+x"(a));  // the product must be computed each time
            x = Int8V::dot(x, a, a);
        }
    }
#pragma GCC unroll 10
    for (auto& x : acc) asm volatile("" ::"x"(x));
    return static_cast<double>(rounds) * 10.0 * 32.0;
}

}  // namespace

extern const Kernels kAvx2Kernels = {sizeof(V::Element),
                                     kTileRows / 2,
                                     pack_rows<V>,
                                     nt_tile<V, uint8_t>,
                                     nt_tile<V, uint16_t>,
                                     nn_tile<V, uint8_t>,
                                     nn_tile<V, uint16_t>,
                                     avx2::quantize_row,
                                     avx2::quantize_row_int8,
                                     avx2::silu_mul,
                                     read,
                                     multiply_peak};

extern const Int8Kernels kAvx2Int8Kernels = {sizeof(Int8V::Element), pack_int8_rows<Int8V>,
                                             int8_tile<Int8V>, int8_peak};

}  // namespace dsa::gemm::cpu
