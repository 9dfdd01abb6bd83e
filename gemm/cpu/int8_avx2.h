#pragma once
// V of int8_tile.h with AVX2: pairs of 16-bit values, (x0, x2) and (x1, x3) of each four of k. Few
// rows meet bytes (int8_rows_avx2.h).

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
#include "gemm/cpu/int8_codes_avx2.h"
#include "gemm/cpu/int8_rows_avx2.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/int8_tile.h"
#include "gemm/cpu/lanes256.h"

namespace dsa::gemm::cpu {
namespace {

struct Int8V : Lanes256 {
    using Vec = __m256i;
    // The type that the instruction has: g++ 12 keeps an array of __m256i in memory.
    typedef int IntSum __attribute__((vector_size(32)));
    using Element = int16_t;
    static constexpr int kStepK = 2;
    static constexpr bool kShifts = false;
    // Measured on Zen 3.
    static constexpr int64_t columns_first_rows(bool conflict) { return conflict ? 16 : 4; }

    static inline Vec load(const int16_t* p) {
        return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
    }
    static inline Vec broadcast(const int16_t* p) {
        int32_t pair = 0;
        __builtin_memcpy(&pair, p, 4);
        return _mm256_set1_epi32(pair);
    }
    static inline IntSum set1_int(int32_t x) { return IntSum(_mm256_set1_epi32(x)); }
    static inline __m256 to_float(IntSum x) { return _mm256_cvtepi32_ps(__m256i(x)); }
    static inline IntSum dot(IntSum acc, Vec a, Vec b) {
        return acc + IntSum(_mm256_madd_epi16(a, b));
    }

    // 32 int8 values to their pairs, 16 dwords.
    static inline void split(__m256i bytes, __m256i* even, __m256i* odd) {
        *even = _mm256_maddubs_epi16(_mm256_set1_epi16(1), bytes);  // times 1, and times 0
        *odd = _mm256_srai_epi16(bytes, 8);
    }
    static inline int32_t pack_row(const int8_t* a, int64_t valid, int16_t* out) {
        for (int64_t i = 0; i < kBlockK; i += 32) {
            __m256i even;
            __m256i odd;
            split(simd256::load_bytes(a + i, valid - i), &even, &odd);
            // dwords in turn: even pair, odd pair of each four
            const __m256i low = _mm256_unpacklo_epi32(even, odd);
            const __m256i high = _mm256_unpackhi_epi32(even, odd);
            auto* to = reinterpret_cast<__m256i*>(out + i);
            _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
            _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
        }
        return 0;
    }

    template <class Next>
    static inline void requantise(const uint8_t* b, const int64_t* offset, int64_t valid,
                                  Next& next, int16_t* panel, float* unit) {
        if (valid >= kBlockK) return requantise_columns(b, offset, kBlockK, next, panel, unit);
        requantise_columns(b, offset, valid, next, panel, unit);
    }
    template <class Next>
    __attribute__((always_inline)) static inline void requantise_columns(const uint8_t* b,
                                                                         const int64_t* offset,
                                                                         int64_t valid, Next& next,
                                                                         int16_t* panel,
                                                                         float* unit) {
        constexpr int64_t kVec = kLanes * kStepK;
        for (int g = 0; g < 2; ++g, offset += 8, panel += kVec, unit += 8) {
            // Codes stay here between the two passes: in L1 conflicting columns (columns.h) push
            // each other out.
            __m256i q[4][8];
            __m256i parts[8];
            for (int j = 0; j < 8; ++j) {
                __m256i codes[4];
                load_codes(b + offset[j], valid, codes);
                next.column();
                parts[j] = largest_of_32(codes);
                for (int i = 0; i < 4; ++i) q[i][j] = codes[i];
            }
            alignas(32) int32_t top[8];
            _mm256_store_si256(reinterpret_cast<__m256i*>(top), largest_of_8(parts));
            for (int j = 0; j < 8; ++j) {
                next.column();
                unit[j] = kInt8Tables.unit[top[j]];
                const Int8Lookup lookup(top[j]);
                // The sign of codes. Where a code is +0, q is 0 as well.
                for (int i = 0; i < 4; ++i)
                    q[i][j] = _mm256_sign_epi8(lookup.magnitudes(q[i][j]), q[i][j]);
            }
            int16_t* out = panel;
            for (int i = 0; i < 4; ++i) {
                simd256::transpose_8x8(q[i]);
                for (int s = 0; s < 8; ++s, out += 4 * kVec) {
                    __m256i even;
                    __m256i odd;
                    split(q[i][s], &even, &odd);
                    _mm256_store_si256(reinterpret_cast<__m256i*>(out), even);
                    _mm256_store_si256(reinterpret_cast<__m256i*>(out + 2 * kVec), odd);
                }
            }
        }
    }

    static inline bool without_panel(const NtTile& t) {
        if (t.m == 1) return int8_one_row(t);
        return t.m <= kFewInt8Rows && int8_few_rows(t);
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
