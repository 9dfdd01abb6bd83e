#pragma once
// One and few int8 rows with AVX2, as bytes, straight from B: lanes are values of k, since exact
// sums may be added in any order. So B needs no transposing, and its magnitudes stay unsigned bytes
// that meet the row's values with the signs of both. Sums as in int8_tile.h.

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/int8_codes_avx2.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes256.h"
#include "gemm/cpu/tile_rows.h"

namespace dsa::gemm::cpu {
namespace {

// Rows up to which panels are slower.
constexpr int64_t kFewInt8Rows = 16;  // measured on Granite Rapids

// 128 packed values (Int8V::pack_row) as bytes again; `least`: the least of all, lane by lane.
inline void unpack_block(const int16_t* pairs, int8_t* values, __m256i* least) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
    for (int64_t i = 0; i < kBlockK; i += 32) {
        const auto* from = reinterpret_cast<const __m256i*>(pairs + i);
        const __m256i bytes = _mm256_permute4x64_epi64(
            _mm256_packs_epi16(_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)), 0xd8);
        *least = _mm256_min_epi8(*least, bytes);
        _mm256_store_si256(reinterpret_cast<__m256i*>(values + i),
                           _mm256_shuffle_epi8(bytes, order));
    }
}

// All rows of a tile, a block of k after another, to values [blocks][rows][128]. False if one is
// -128, which has no opposite.
inline bool unpack_rows(const NtTile& t, int8_t* values) {
    const auto* a = static_cast<const int16_t*>(t.a);
    __m256i least = _mm256_setzero_si256();
    for (int64_t k = 0; k < t.k; k += kBlockK, a += t.a_block_stride)
        for (int64_t r = 0; r < t.m; ++r, values += kBlockK)
            unpack_block(a + r * kBlockK, values, &least);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, _mm256_set1_epi8(-128))) == 0;
}

// Lanes' sums of products of 128 codes with a row's values; magnitude(i): of codes[i], 0 where they
// are.
template <class Magnitude>
__attribute__((always_inline)) inline __m256i dot_block(const __m256i* codes,
                                                        const Magnitude& magnitude,
                                                        const int8_t* row) {
    __m256i acc = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(row) + i);
        const __m256i pairs = _mm256_maddubs_epi16(magnitude(i), _mm256_sign_epi8(a, codes[i]));
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return acc;
}

// The sum of the lanes of each of 8 vectors.
__attribute__((always_inline)) inline __m256i sum_lanes(const __m256i* x) {
    const auto add_pair = [](__m256i a, __m256i b) {
        return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    };
    const auto add_four = [&](const __m256i* v) {
        const __m256i a = add_pair(v[0], v[1]);
        const __m256i b = add_pair(v[2], v[3]);
        return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    };
    const __m256i low = add_four(x);
    const __m256i high = add_four(x + 4);
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

// ---- few rows: 8 columns side by side ----

// Largest codes of the block of k at b + offset[j] of 8 columns.
__attribute__((always_inline)) inline void find_largest(const uint8_t* b, const int64_t* offset,
                                                        int64_t valid, int32_t* top) {
    __m256i parts[8];
    for (int j = 0; j < 8; ++j) {
        __m256i codes[4];
        load_codes(b + offset[j], valid, codes);
        parts[j] = largest_of_32(codes);
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(top), largest_of_8(parts));
}

// Sums of 8 columns: blocks of k one after another.
class Int8Columns {
  public:
    Int8Columns(const NtTile& t, int64_t col, const int8_t* rows)
        : t_(t), b_scale_(t.b_scale + col / kBlockK * t.b_scale_ld), rows_(rows) {
        column_offsets<Lanes256>(t, col, offset_);
        find_largest(static_cast<const uint8_t*>(t.b), offset_, t.k, top_);
    }

    // Adds the block from `k` to total [rows][16], of which these columns have 8.
    void add_block(int64_t k, NextOfCpu<1>& next, float* total) {
        const auto* b = static_cast<const uint8_t*>(t_.b) + k;
        const int64_t valid = min_of(t_.k - k, kBlockK);
        const int8_t* rows = rows_ + k * t_.m;
        alignas(32) float unit[8];
        for (int j = 0; j < 8; ++j) unit[j] = kInt8Tables.unit[top_[j]];
        for (int j = 0; j < 8; ++j) {
            next.lines(2);
            next.block(b + offset_[j]);
            // Of the block behind the next one, whose largest codes are found below.
            if (t_.follows_columns) prefetch_lines(b + offset_[j] + 2 * kBlockK, 2, false);
            if (valid == kBlockK) {
                multiply_column(b + offset_[j], kBlockK, j, rows);
            } else {
                multiply_column(b + offset_[j], valid, j, rows);
            }
        }
        // Of the next block, a long chain, beside these sums.
        const int64_t behind = t_.k - k - kBlockK;
        if (behind >= kBlockK) {
            find_largest(b + kBlockK, offset_, kBlockK, top_);
        } else if (behind > 0) {
            find_largest(b + kBlockK, offset_, behind, top_);
        }
        const __m256 scale =
            _mm256_mul_ps(_mm256_load_ps(unit), _mm256_set1_ps(b_scale_[k / kBlockK]));
        for (int64_t r = 0; r < t_.m; ++r) {
            const __m256 both = _mm256_mul_ps(_mm256_set1_ps(row_scale(t_, r, k)), scale);
            float* sum = total + 16 * r;
            _mm256_store_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum_lanes(sums_[r])), both,
                                                 _mm256_load_ps(sum)));
        }
    }

  private:
    __attribute__((always_inline)) void multiply_column(const uint8_t* b, int64_t valid, int j,
                                                        const int8_t* rows) {
        __m256i codes[4];
        __m256i magnitudes[4];
        load_codes(b, valid, codes);
        const Int8Lookup lookup(top_[j]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) magnitudes[i] = lookup.magnitudes(codes[i]);
        for (int64_t r = 0; r < t_.m; ++r)
            _mm256_store_si256(
                &sums_[r][j], dot_block(
                                  codes, [&](int i) { return magnitudes[i]; }, rows + r * kBlockK));
    }

    const NtTile& t_;
    const float* b_scale_;
    const int8_t* rows_;
    int64_t offset_[8];
    alignas(32) int32_t top_[8];
    __m256i sums_[kFewInt8Rows][8];  // lanes' sums of a block
};

// False if the rows have no such form: they do not fit the scratch, or as unpack_rows() says.
inline bool int8_few_rows(const NtTile& t) {
    const int64_t bytes = (t.k + kBlockK - 1) / kBlockK * kBlockK * t.m;
    if (bytes > nt_scratch_bytes(t.k)) return false;
    auto* rows = static_cast<int8_t*>(t.scratch);
    if (!unpack_rows(t, rows)) return false;
    for (int64_t col = 0; col < t.n; col += 16) {
        alignas(32) float total[kFewInt8Rows * 16] = {};
        Int8Columns low(t, col, rows);
        Int8Columns high(t, min_of(col + 8, t.n - 1), rows);
        NextOfCpu<1> next(static_cast<const uint8_t*>(t.b) + col * t.ldb, t, 16);
        for (int64_t k = 0; k < t.k; k += kBlockK) {
            low.add_block(k, next, total);
            high.add_block(k, next, total + 8);
        }
        for (int64_t r = 0; r < t.m; ++r)
            store_sums<Lanes256>(t, r, col, _mm256_load_ps(total + 16 * r),
                                 _mm256_load_ps(total + 16 * r + 8));
    }
    return true;
}

// ---- one row: one column after another, which is one ascending run of memory ----

constexpr int64_t kRunBlocks = 8;  // blocks of k whose sums make a vector

struct Int8Row {
    const int8_t* values;
    const float* scale;  // up to a multiple of kRunBlocks
};

// Sums of kRunBlocks blocks of a column (`valid` values, zeros behind), and what 1 means in each.
// The largest codes come first: finding them is a long chain.
template <bool kWhole>
inline __m256i dot_run(const uint8_t* b, int64_t valid, bool follows, const int8_t* row,
                       float* unit) {
    int32_t top[kRunBlocks];
    __m256i sums[kRunBlocks];
    __m256i codes[4];
    const int64_t blocks = kWhole ? kRunBlocks : (valid + kBlockK - 1) / kBlockK;
    for (int64_t i = 0; i < blocks; ++i) {
        prefetch_run(b + i * kBlockK, follows);
        load_codes(b + i * kBlockK, kWhole ? kBlockK : valid - i * kBlockK, codes);
        top[i] = largest(codes);
        unit[i] = kInt8Tables.unit[top[i]];
    }
    for (int64_t i = 0; i < kRunBlocks; ++i) sums[i] = _mm256_setzero_si256();
    for (int64_t i = 0; i < blocks; ++i) {
        load_codes(b + i * kBlockK, kWhole ? kBlockK : valid - i * kBlockK, codes);
        const Int8Lookup lookup(top[i]);
        sums[i] = dot_block(
            codes, [&](int at) { return lookup.magnitudes(codes[at]); }, row + i * kBlockK);
    }
    return sum_lanes(sums);
}

__attribute__((noinline)) float one_row_column(const NtTile& t, int64_t col, const Int8Row& row) {
    const auto* b = static_cast<const uint8_t*>(t.b) + col * t.ldb;
    const float* b_scale = t.b_scale + col / kBlockK * t.b_scale_ld;
    float total = 0.0F;
    for (int64_t k = 0; k < t.k; k += kRunBlocks * kBlockK) {
        alignas(32) float unit[kRunBlocks];
        alignas(32) float sum[kRunBlocks];
        const int64_t valid = t.k - k;
        const __m256i sums =
            valid >= kRunBlocks * kBlockK
                ? dot_run<true>(b + k, valid, t.follows_columns, row.values + k, unit)
                : dot_run<false>(b + k, valid, t.follows_columns, row.values + k, unit);
        _mm256_store_ps(sum, _mm256_cvtepi32_ps(sums));
        const int64_t first = k / kBlockK;
        for (int64_t i = 0; i < kRunBlocks && i * kBlockK < valid; ++i)
            total = __builtin_fmaf(sum[i], row.scale[first + i] * (unit[i] * b_scale[first + i]),
                                   total);
    }
    return total;
}

// As int8_few_rows().
inline bool int8_one_row(const NtTile& t) {
    const int64_t blocks = (t.k + kBlockK - 1) / kBlockK;
    const int64_t padded = (blocks + kRunBlocks - 1) / kRunBlocks * kRunBlocks;
    if (padded * (kBlockK + 4) > nt_scratch_bytes(t.k)) return false;
    auto* scale = static_cast<float*>(t.scratch);
    auto* values = reinterpret_cast<int8_t*>(scale + padded);
    for (int64_t i = 0; i < blocks; ++i) scale[i] = row_scale(t, 0, i * kBlockK);
    if (!unpack_rows(t, values)) return false;
    alignas(32) float total[16] = {};
    for (int64_t col = 0; col < t.n; col += 16) {
        for (int64_t i = 0; i < 16 && col + i < t.n; ++i)
            total[i] = one_row_column(t, col + i, {values, scale});
        store_sums<Lanes256>(t, 0, col, _mm256_load_ps(total), _mm256_load_ps(total + 8));
    }
    return true;
}

}  // namespace
}  // namespace dsa::gemm::cpu
