#pragma once
// 2 .. 16 int8 rows straight from B, all of k of 16 columns before the next ones. 64 codes of each
// column are requantised while the 64 before them meet all rows: a core reorders far enough to do
// both at once, unlike with a panel that all rows wait for. Sums as in int8_tile.h, but here B is
// the unsigned operand, stored as value + 128: the signed one comes from memory, four values
// broadcast by the product itself, and what 128 adds is a sum of a row, the same for all columns. V
// is Int8Vnni. Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "base/unrolled.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/one_row.h"

namespace dsa::gemm::cpu {

// The rows of a tile as signed values [blocks of k][kRows][128], and 128 times their sums in each
// block [blocks of k][kRows].
struct SignedRows {
    const uint8_t* values;
    const int32_t* sums;
};

static inline int64_t signed_rows_bytes(int64_t m, int64_t k) {
    return (k + kBlockK - 1) / kBlockK * m * (kBlockK + static_cast<int64_t>(sizeof(int32_t)));
}

// From the packed rows, which are value + 128, at `to`.
template <int kRows>
static inline SignedRows make_signed_rows(const NtTile& t, uint8_t* to) {
    const int64_t blocks = (t.k + kBlockK - 1) / kBlockK;
    auto* sums = reinterpret_cast<int32_t*>(to + blocks * kRows * kBlockK);
    const SignedRows rows{to, sums};
    const __m512i sign = _mm512_set1_epi8(-128);
    const __m512i zero = _mm512_setzero_si512();
    for (int64_t block = 0; block < blocks; ++block) {
        const auto* from = static_cast<const uint8_t*>(t.a) + block * t.a_block_stride;
        for (int r = 0; r < kRows; ++r, from += kBlockK, to += kBlockK) {
            const __m512i x = _mm512_loadu_si512(from);
            const __m512i y = _mm512_loadu_si512(from + 64);
            _mm512_storeu_si512(to, _mm512_xor_si512(x, sign));
            _mm512_storeu_si512(to + 64, _mm512_xor_si512(y, sign));
            const int64_t sum = _mm512_reduce_add_epi64(
                _mm512_add_epi64(_mm512_sad_epu8(x, zero), _mm512_sad_epu8(y, zero)));
            *sums++ = static_cast<int32_t>(128 * (sum - 128 * kBlockK));
        }
    }
    return rows;
}

// 64 values of k of 16 columns, unsigned; vector 4 * j + c is b[c] of transpose_four, of columns 4
// * j on.
struct Int8Half {
    alignas(64) uint8_t values[16][64];
};

// Columns 4 * j .. 4 * j + 3 of a half: codes at b + offset[], masked; top: the largest codes.
template <class V>
DSA_INLINE void requantise_four(const uint8_t* b, const int64_t* offset, __mmask64 mask,
                                const int32_t* top, int64_t j, Int8Half* half) {
    const auto column = [&](int64_t i) {
        const __m512i codes = _mm512_maskz_loadu_epi8(mask, b + offset[i]);
        const typename V::LargestLookup lookup(top[i], kInt8TablesFrom128);
        return simd::in_register(V::requantised(lookup, codes));
    };
    const __m512i x0 = column(4 * j);
    const __m512i x1 = column(4 * j + 1);
    const __m512i x2 = column(4 * j + 2);
    const __m512i x3 = column(4 * j + 3);
    __m512i out[4];
    simd::transpose_four<4>(x0, x1, x2, x3, out);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) _mm512_store_si512(half->values[4 * j + c], out[c]);
}

// Adds to acc the products of dwords c, c + 4, c + 8, c + 12 of a half and kRows rows, which are at
// a [kRows][128] from the half's first value on.
template <class V, int kRows>
DSA_INLINE void multiply_four(const Int8Half& half, int64_t c, const uint8_t* a,
                              typename V::IntSum* acc) {
    const auto load = [&](int64_t j)
                          DSA_INLINE_LAMBDA { return _mm512_load_si512(half.values[4 * j + c]); };
    a += 4 * c;
    simd::join_fours(load(0), load(1), load(2), load(3),
                     [&](int64_t i, __m512i x) DSA_INLINE_LAMBDA {
                         simd::unrolled<kRows>([&](auto r) DSA_INLINE_LAMBDA {
                             acc[r] = V::dot_at(acc[r], a + r * kBlockK + 16 * i, x);
                         });
                     });
}

// Blocks of k from `k` to `end` of 16 columns, which are at b + offset[j], times kRows rows, added
// to total [kRows][16].
template <class V, int kRows>
static inline void int8_few_rows_blocks(const NtTile& t, int64_t col, const uint8_t* b,
                                        const int64_t* offset, int64_t k, int64_t end,
                                        NextColumns<1>& next, float* total,
                                        const SignedRows& rows) {
    const uint8_t* a = rows.values + k * kRows;
    const int32_t* a_sum = rows.sums + k / kBlockK * kRows;
    const float* a_scale = t.a_scale + k / kBlockK * t.a_scale_stride_k;
    const int64_t scale_stride = t.a_scale_stride_m;
    Int8Half half[2];
    alignas(64) int32_t top[16];
    __m512i tops = V::largest(b, offset, end - k);
    V::store_largest(tops, top);
    const auto mask = [&](int64_t first) { return simd::mask_64(end > first ? end - first : 0); };
    for (int64_t j = 0; j < 4; ++j) requantise_four<V>(b, offset, mask(k), top, j, &half[0]);
    for (; k < end; k += kBlockK) {
        const __m512 unit =
            V::mul(V::units(tops), V::set1(t.b_scale[col / kBlockK * t.b_scale_ld + k / kBlockK]));
        const bool last = end - k <= kBlockK;
        if (!last) tops = V::largest(b + kBlockK, offset, end - k - kBlockK);
        typename V::IntSum acc[kRows];
#pragma GCC unroll 16
        for (auto& x : acc) x = typename V::IntSum{};
        for (int64_t j = 0; j < 4; ++j) {
            next.lines(4);
            requantise_four<V>(b + 64, offset, mask(k + 64), top, j, &half[1]);
            multiply_four<V, kRows>(half[0], j, a, acc);
        }
        V::store_largest(tops, top);
        for (int64_t j = 0; j < 4; ++j) {
            next.lines(4);
            if (!last) requantise_four<V>(b + kBlockK, offset, mask(k + kBlockK), top, j, &half[0]);
            multiply_four<V, kRows>(half[1], j, a + 64, acc);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            float* sum = total + r * V::kLanes;
            const __m512 scale = V::mul(V::set1(a_scale[r * scale_stride]), unit);
            const __m512i product = _mm512_sub_epi32(__m512i(acc[r]), _mm512_set1_epi32(a_sum[r]));
            V::store_sum(sum, V::fma(_mm512_cvtepi32_ps(product), scale, V::load_sum(sum)));
        }
        b += kBlockK;
        a += kRows * kBlockK;
        a_sum += kRows;
        a_scale += t.a_scale_stride_k;
    }
}

template <class V, int kRows>
static inline void int8_few_rows_columns(const NtTile& t, int64_t col, float* total,
                                         const SignedRows& rows) {
    const auto* b = static_cast<const uint8_t*>(t.b);
    int64_t offset[V::kLanes];
    column_offsets<V>(t, col, offset);
    NextColumns<1> next(b + col * t.ldb, t, V::kLanes);
    for (int r = 0; r < kRows; ++r) V::store_sum(total + r * V::kLanes, V::zero());
    constexpr int64_t kRun = kCopiedRun<uint8_t>;
    const int64_t k = with_copies<uint8_t, V::kLanes, kRun>(
        t, offset, false, [&](const uint8_t* values, const int64_t* places, int64_t first) {
            int8_few_rows_blocks<V, kRows>(t, col, values, places, first, first + kRun, next, total,
                                           rows);
        });
    if (k < t.k) int8_few_rows_blocks<V, kRows>(t, col, b + k, offset, k, t.k, next, total, rows);
}

// Whether the scratch of a tile is enough.
template <class V>
static inline bool int8_few_rows_fit(const NtTile& t) {
    return signed_rows_bytes(t.m, t.k) + 2 * t.m * V::kLanes * 4 <= kNtScratchBytes;
}

// t.m rows, at most kRows.
template <class V, int kRows>
static inline void int8_few_rows(const NtTile& t) {
    if constexpr (kRows > 1) {
        if (t.m < kRows) return int8_few_rows<V, kRows - 1>(t);
        auto* total = static_cast<float*>(t.scratch);
        constexpr int64_t kSums = kRows * V::kLanes;
        const SignedRows rows =
            make_signed_rows<kRows>(t, reinterpret_cast<uint8_t*>(total + 2 * kSums));
        for (int64_t col = 0; col < t.n; col += 2 * V::kLanes) {
            int8_few_rows_columns<V, kRows>(t, col, total, rows);
            if (col + V::kLanes < t.n)
                int8_few_rows_columns<V, kRows>(t, col + V::kLanes, total + kSums, rows);
            for (int64_t i = 0; i < kRows; ++i) {
                const float* sums = total + i * V::kLanes;
                store_sums<V>(t, i, col, V::load_sum(sums), V::load_sum(sums + kSums));
            }
        }
    }
}

}  // namespace dsa::gemm::cpu
