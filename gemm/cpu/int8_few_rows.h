#pragma once
// 2 .. 16 int8 rows straight from B, all of k of 16 columns before the next ones. 64 codes of each
// column are requantised while the 64 before them meet all rows: a core reorders far enough to do
// both at once, unlike with a panel that all rows wait for. Sums as in int8_tile.h. V is Int8Vnni.
// Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "base/unrolled.h"
#include "gemm/cpu/column_runs.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/int8_tile.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/one_row.h"

namespace dsa::gemm::cpu {

template <class V>
using NextOfFewRows = NextOfVisit<1, V::kLanes, 512>;  // measured on Granite Rapids

// 64 values of k of 16 columns, unsigned; vector 4 * j + c is b[c] of transpose_four, of columns 4
// * j on.
struct Int8Half {
    alignas(64) uint8_t values[16][64];
};

// 64 values of k of four of 16 columns, from `column` on: codes at b + offset[], the first `valid`;
// top: the largest codes.
struct FourColumns {
    const uint8_t* b;
    const int64_t* offset;
    int64_t valid;
    const int32_t* top;
    int64_t column;
};

// Column i of the four, unsigned. kWhole: of 64 codes, whose load takes no mask.
template <class V, bool kWhole>
DSA_INLINE __m512i requantise_column(const FourColumns& from, int64_t i) {
    const uint8_t* p = from.b + from.offset[from.column + i];
    const __m512i codes =
        kWhole ? _mm512_loadu_si512(p)
               : _mm512_maskz_loadu_epi8(simd::mask_64(from.valid > 0 ? from.valid : 0), p);
    return simd::in_register(V::requantised(from.top[from.column + i], codes));
}

DSA_INLINE void store_four(__m512i x0, __m512i x1, __m512i x2, __m512i x3, int64_t column,
                           Int8Half* half) {
    __m512i out[4];
    simd::transpose_four<4>(x0, x1, x2, x3, out);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) _mm512_store_si512(half->values[column + c], out[c]);
}

template <class V, bool kWhole>
DSA_INLINE void requantise_four(const FourColumns& from, Int8Half* half) {
    const __m512i x0 = requantise_column<V, kWhole>(from, 0);
    const __m512i x1 = requantise_column<V, kWhole>(from, 1);
    const __m512i x2 = requantise_column<V, kWhole>(from, 2);
    const __m512i x3 = requantise_column<V, kWhole>(from, 3);
    store_four(x0, x1, x2, x3, from.column, half);
}

// Adds to acc the products of dwords c, c + 4, c + 8, c + 12 of a half and kRows rows, which are at
// a [kRows][128] from the half's first value on. after(i): after those of dword c + 4 * i.
template <class V, int kRows, class After>
DSA_INLINE void multiply_four(const Int8Half& half, int64_t c, const int8_t* a,
                              typename V::IntSum* acc, const After& after) {
    const auto load = [&](int64_t j)
                          DSA_INLINE_LAMBDA { return _mm512_load_si512(half.values[4 * j + c]); };
    a += 4 * c;
    simd::join_fours(load(0), load(1), load(2), load(3),
                     [&](int64_t i, __m512i x) DSA_INLINE_LAMBDA {
                         simd::unrolled<kRows>([&](auto r) DSA_INLINE_LAMBDA {
                             acc[r] = V::dot_at(acc[r], a + r * kBlockK + 16 * i, x);
                         });
                         after(i);
                     });
}

// A quarter of a half meets the rows, and four columns are requantised in between, one after each
// dword's products: the two keep different units busy.
template <class V, bool kWhole, int kRows>
DSA_INLINE void multiply_and_requantise_four(const Int8Half& half, const int8_t* a,
                                             typename V::IntSum* acc, const FourColumns& from,
                                             Int8Half* to) {
    __m512i x0 = _mm512_setzero_si512();
    __m512i x1 = x0;
    __m512i x2 = x0;
    __m512i x3 = x0;
    multiply_four<V, kRows>(half, from.column / 4, a, acc, [&](int64_t i) DSA_INLINE_LAMBDA {
        if (i == 0) x0 = requantise_column<V, kWhole>(from, 0);
        if (i == 1) x1 = requantise_column<V, kWhole>(from, 1);
        if (i == 2) x2 = requantise_column<V, kWhole>(from, 2);
        if (i == 3) x3 = requantise_column<V, kWhole>(from, 3);
    });
    store_four(x0, x1, x2, x3, from.column, to);
}

// Blocks of k from `k` to `end` of 16 columns, which are at b + offset[j], times kRows rows, added
// to total [kRows][16]. kWhole: all of them have kBlockK values.
template <class V, bool kWhole, int kRows>
static inline void int8_few_rows_blocks(const NtTile& t, int64_t col, const uint8_t* b,
                                        const int64_t* offset, int64_t k, int64_t end,
                                        NextOfFewRows<V>& next, float* total) {
    const auto* a = static_cast<const int8_t*>(t.a) + k / kBlockK * t.a_block_stride;
    const int32_t* a_start = row_starts(t, k);
    const float* a_scale = t.a_scale + k / kBlockK * t.a_scale_stride_k;
    const int64_t scale_stride = t.a_scale_stride_m;
    Int8Half half[2];
    alignas(64) int32_t top[16];
    __m512i tops = V::largest(b, offset, end - k);
    V::store_largest(tops, top);
    for (int64_t j = 0; j < 16; j += 4)
        requantise_four<V, kWhole>({b, offset, end - k, top, j}, &half[0]);
    for (; k < end; k += kBlockK) {
        const __m512 unit =
            V::mul(V::units(tops), V::set1(t.b_scale[col / kBlockK * t.b_scale_ld + k / kBlockK]));
        const bool last = end - k <= kBlockK;
        if (!last) tops = V::largest(b + kBlockK, offset, end - k - kBlockK);
        next.block(k);
        typename V::IntSum acc[kRows];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) acc[r] = V::set1_int(a_start[r]);
        const int64_t ahead = last ? 0 : kBlockK;  // behind the last block: nothing that is used
        for (int64_t j = 0; j < 16; j += 4) {
            next.lines(4);
            next.columns(b, offset + j, 4);
            multiply_and_requantise_four<V, kWhole, kRows>(
                half[0], a, acc, {b + 64, offset, end - k - 64, top, j}, &half[1]);
        }
        V::store_largest(tops, top);
        for (int64_t j = 0; j < 16; j += 4) {
            next.lines(4);
            multiply_and_requantise_four<V, kWhole, kRows>(
                half[1], a + 64, acc, {b + ahead, offset, end - k - ahead, top, j}, &half[0]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            float* sum = total + r * V::kLanes;
            const __m512 scale = V::mul(V::set1(a_scale[r * scale_stride]), unit);
            V::store_sum(sum, V::fma(V::to_float(acc[r]), scale, V::load_sum(sum)));
        }
        b += kBlockK;
        a += t.a_block_stride;
        a_start += t.a_block_stride / kBlockK;
        a_scale += t.a_scale_stride_k;
    }
}

// Columns of visit i.
template <class V, int kRows>
static inline void int8_few_rows_columns(const NtTile& t, const Visits<V::kLanes>& visits,
                                         int64_t i, float* total) {
    const auto* b = static_cast<const uint8_t*>(t.b);
    const int64_t col = visits[i].column[0];
    int64_t offset[V::kLanes];
    visits[i].offsets(t, offset);
    NextOfFewRows<V> next(t, visits, i, whole_range(t), offset);
    for (int r = 0; r < kRows; ++r) V::store_sum(total + r * V::kLanes, V::zero());
    constexpr int64_t kRun = kCopiedRun<uint8_t>;
    const int64_t k = with_copies<uint8_t, V::kLanes, kRun>(
        t, offset, false, [&](const uint8_t* values, const int64_t* places, int64_t first) {
            int8_few_rows_blocks<V, true, kRows>(t, col, values, places, first, first + kRun, next,
                                                 total);
        });
    const int64_t whole = t.k / kBlockK * kBlockK;
    if (k < whole)
        int8_few_rows_blocks<V, true, kRows>(t, col, b + k, offset, k, whole, next, total);
    if (whole < t.k)
        int8_few_rows_blocks<V, false, kRows>(t, col, b + whole, offset, whole, t.k, next, total);
}

// t.m rows, at most kRows.
template <class V, int kRows>
static inline void int8_few_rows(const NtTile& t) {
    if constexpr (kRows > 1) {
        if (t.m < kRows) return int8_few_rows<V, kRows - 1>(t);
        const Visits<V::kLanes> visits(t);
        auto* sums = static_cast<float*>(t.scratch);
        for (int64_t i = 0; i < visits.count(); ++i)
            int8_few_rows_columns<V, kRows>(t, visits, i, sums + i * kRows * V::kLanes);
        store_visits<V>(t, visits, sums);
    }
}

}  // namespace dsa::gemm::cpu
