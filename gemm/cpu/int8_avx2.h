#pragma once
// V of int8_tile.h with AVX2: pairs of 16-bit values, (x0, x2) and (x1, x3) of each four of k. A
// single row meets bytes.

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
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

    // 128 codes of a column, zeros behind the first `valid`.
    static inline void load_codes(const uint8_t* b, int64_t valid, __m256i* codes) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) codes[i] = simd256::load_bytes(b + 32 * i, valid - 32 * i);
    }

    // Largest magnitude codes of 128, in each place of 32.
    static inline __m256i largest_of_32(const __m256i* codes) {
        const __m256i magnitude = _mm256_set1_epi8(0x7f);
        return _mm256_max_epu8(_mm256_max_epu8(_mm256_and_si256(codes[0], magnitude),
                                               _mm256_and_si256(codes[1], magnitude)),
                               _mm256_max_epu8(_mm256_and_si256(codes[2], magnitude),
                                               _mm256_and_si256(codes[3], magnitude)));
    }
    // Largest magnitude code of 128.
    static inline int largest(const __m256i* codes) {
        const __m256i v = largest_of_32(codes);
        __m128i x = _mm_max_epu8(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        x = _mm_max_epu8(x, _mm_srli_epi16(x, 8));
        // The least of 16-bit words is one instruction.
        const __m128i inverse = _mm_andnot_si128(x, _mm_set1_epi16(0xff));
        return 0xff - (_mm_cvtsi128_si32(_mm_minpos_epu16(inverse)) & 0xff);
    }
    // Of each of 8 columns, given largest_of_32() of each: the vectors are transposed on
    // the way, and 8 results come from one chain.
    static inline __m256i largest_of_8(const __m256i* v) {
        __m256i half[4];  // of columns j and j + 4
        for (int j = 0; j < 4; ++j)
            half[j] = _mm256_max_epu8(_mm256_permute2x128_si256(v[j], v[j + 4], 0x20),
                                      _mm256_permute2x128_si256(v[j], v[j + 4], 0x31));
        __m256i quarter[2];
        for (int j = 0; j < 2; ++j)
            quarter[j] = _mm256_max_epu8(_mm256_unpacklo_epi64(half[j], half[j + 2]),
                                         _mm256_unpackhi_epi64(half[j], half[j + 2]));
        // Dwords of columns 0, 1, 2, 3 of a lane: 0 and 2 lie in quarter[0], 1 and 3 in quarter[1].
        const __m256i even = _mm256_shuffle_epi32(quarter[0], 0xd8);
        const __m256i odd = _mm256_shuffle_epi32(quarter[1], 0xd8);
        __m256i x =
            _mm256_max_epu8(_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
        x = _mm256_max_epu8(x, _mm256_srli_epi32(x, 16));
        x = _mm256_max_epu8(x, _mm256_srli_epi32(x, 8));
        return _mm256_and_si256(x, _mm256_set1_epi32(0x7f));
    }

    // Magnitudes of 32 codes by the table of the largest one; `below` is 63 less that code.
    static inline __m256i requantised(const uint8_t* table, __m256i below, __m256i codes) {
        // 0 .. 63; below them the top bit is set, for which a shuffle gives 0.
        const __m256i at = _mm256_add_epi8(_mm256_and_si256(codes, _mm256_set1_epi8(0x7f)), below);
        __m256i q = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
            const __m256i entries = _mm256_broadcastsi128_si256(
                _mm_load_si128(reinterpret_cast<const __m128i*>(table) + part));
            const __m256i index =
                _mm256_sub_epi8(at, _mm256_set1_epi8(static_cast<char>(16 * part)));
            q = _mm256_xor_si256(q, _mm256_shuffle_epi8(entries, index));
        }
        return q;
    }
    static inline __m256i below(int largest) {
        return _mm256_set1_epi8(static_cast<char>(63 - largest));
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
                // The sign of codes. Where a code is +0, q is 0 as well.
                for (int i = 0; i < 4; ++i)
                    q[i][j] = _mm256_sign_epi8(
                        requantised(kInt8XorTables.magnitude[top[j]], below(top[j]), q[i][j]),
                        q[i][j]);
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

    // ---- one row ----
    // Lanes are values of k, since exact sums may be added in any order: one column after another,
    // which is one ascending run of memory.

    static constexpr int64_t kRun = 8;  // blocks of k whose sums make a vector

    // The row as bytes again, and its scales.
    struct Row {
        int8_t* values;
        float* scale;  // up to a multiple of kRun
    };

    // False if a value is -128, which has no counterpart, or the row is too long for the scratch.
    static inline bool unpack_row(const NtTile& t, Row* row) {
        const int64_t blocks = (t.k + kBlockK - 1) / kBlockK;
        const int64_t padded = (blocks + kRun - 1) / kRun * kRun;
        if (padded * (kBlockK + 4) > nt_scratch_bytes(t.k)) return false;
        row->scale = static_cast<float*>(t.scratch);
        row->values = reinterpret_cast<int8_t*>(row->scale + padded);
        for (int64_t i = 0; i < blocks; ++i) row->scale[i] = row_scale(t, 0, i * kBlockK);
        const auto* a = static_cast<const int16_t*>(t.a);
        const __m256i order = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
        __m256i least = _mm256_setzero_si256();
        for (int64_t k = 0; k < t.k; k += kBlockK, a += t.a_block_stride)
            for (int64_t i = 0; i < kBlockK; i += 32) {
                const auto* from = reinterpret_cast<const __m256i*>(a + i);
                const __m256i pairs = _mm256_permute4x64_epi64(
                    _mm256_packs_epi16(_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)),
                    0xd8);
                least = _mm256_min_epi8(least, pairs);
                _mm256_store_si256(reinterpret_cast<__m256i*>(row->values + k + i),
                                   _mm256_shuffle_epi8(pairs, order));
            }
        return _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, _mm256_set1_epi8(-128))) == 0;
    }

    // Sums of each vector's lanes, those of the two halves apart.
    static inline __m256i add_lanes(const __m256i* x) {
        return _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
    }

    // Lanes' sums of 128 codes whose largest is `top`.
    static inline __m256i dot_block(const __m256i* codes, int top, const int8_t* row) {
        __m256i acc = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(row) + i);
            const __m256i q = requantised(kInt8XorTables.magnitude[top], below(top), codes[i]);
            // Where a code is +0, q is 0 as well.
            const __m256i pairs = _mm256_maddubs_epi16(q, _mm256_sign_epi8(a, codes[i]));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        return acc;
    }

    // Sums of kRun blocks of a column (`valid` values, zeros behind), and what 1 means in each.
    // The largest codes come first: finding one is a long chain.
    template <bool kWhole>
    static inline __m256i dot_run(const uint8_t* b, int64_t valid, const int8_t* row, float* unit) {
        constexpr int64_t kAhead = 4096;  // as for reading alone
        int top[kRun];
        __m256i sum[kRun];
        __m256i codes[4];
        const int64_t blocks = kWhole ? kRun : (valid + kBlockK - 1) / kBlockK;
        for (int64_t i = 0; i < blocks; ++i) {
            __builtin_prefetch(b + i * kBlockK + kAhead);
            __builtin_prefetch(b + i * kBlockK + kAhead + 64);
            load_codes(b + i * kBlockK, kWhole ? kBlockK : valid - i * kBlockK, codes);
            top[i] = largest(codes);
            unit[i] = kInt8Tables.unit[top[i]];
        }
        for (int64_t i = 0; i < kRun; ++i) sum[i] = _mm256_setzero_si256();
        for (int64_t i = 0; i < blocks; ++i) {
            load_codes(b + i * kBlockK, kWhole ? kBlockK : valid - i * kBlockK, codes);
            sum[i] = dot_block(codes, top[i], row + i * kBlockK);
        }
        const __m256i low = add_lanes(sum);
        const __m256i high = add_lanes(sum + 4);
        return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                                _mm256_permute2x128_si256(low, high, 0x31));
    }

    __attribute__((noinline)) static float one_row_column(const NtTile& t, int64_t col,
                                                          const Row& row) {
        const auto* b = static_cast<const uint8_t*>(t.b) + col * t.ldb;
        const float* b_scale = t.b_scale + col / kBlockK * t.b_scale_ld;
        float total = 0.0F;
        for (int64_t k = 0; k < t.k; k += kRun * kBlockK) {
            alignas(32) float unit[kRun];
            alignas(32) float sum[kRun];
            const int64_t valid = t.k - k;
            const __m256i sums = valid >= kRun * kBlockK
                                     ? dot_run<true>(b + k, valid, row.values + k, unit)
                                     : dot_run<false>(b + k, valid, row.values + k, unit);
            _mm256_store_ps(sum, _mm256_cvtepi32_ps(sums));
            const int64_t first = k / kBlockK;
            for (int64_t i = 0; i < kRun && i * kBlockK < valid; ++i)
                total = __builtin_fmaf(
                    sum[i], row.scale[first + i] * (unit[i] * b_scale[first + i]), total);
        }
        return total;
    }

    static inline bool without_panel(const NtTile& t) {
        if (t.m != 1) return false;
        Row row{};
        if (!unpack_row(t, &row)) return false;
        alignas(32) float total[16] = {};
        for (int64_t col = 0; col < t.n; col += 16) {
            for (int64_t i = 0; i < 16 && col + i < t.n; ++i)
                total[i] = one_row_column(t, col + i, row);
            store_sums<Int8V>(t, 0, col, _mm256_load_ps(total), _mm256_load_ps(total + 8));
        }
        return true;
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
