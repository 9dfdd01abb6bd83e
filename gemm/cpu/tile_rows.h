#pragma once
// Rows of an nt tile: their scales, how many at a time meet columns of B, and where their sums go.
// V as in nt_tile.h. Everything is static inline: internal to the ISA file.

#include <cstdint>
#include <type_traits>

#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

static inline float row_scale(const NtTile& t, int64_t row, int64_t k) {
    if (t.a_scale == nullptr) return 1.0F;
    return t.a_scale[row * t.a_scale_stride_m + k / kBlockK * t.a_scale_stride_k];
}
template <class V, class Code>
static inline float column_scale(const NtTile& t, int64_t col, int64_t k) {
    if (t.b_scale == nullptr) return V::template kWidened<Code>;
    return t.b_scale[col / kBlockK * t.b_scale_ld + k / kBlockK] * V::template kWidened<Code>;
}

// 2 * kLanes columns of a row of D, those that there are. All NaNs become one: which of several a
// multiply-add passes on depends on the order of its operands, which the compiler picks for each
// kernel.
template <class V>
static inline void store_sums(const NtTile& t, int64_t row, int64_t col, typename V::Sum x,
                              typename V::Sum y) {
    const int64_t at = row * t.ldd + col;
    x = V::one_nan(x);
    y = V::one_nan(y);
    if (t.d_is_f32) {
        V::store_columns(static_cast<float*>(t.d) + at, t.n - col, x, y);
    } else {
        V::store_columns(static_cast<uint16_t*>(t.d) + at, t.n - col, x, y);
    }
}

// How rows meet some columns: `count` times at most kRows of them, as even as can be.
template <class V>
struct RowSteps {
    explicit RowSteps(int64_t m)
        : count((m + V::kRows - 1) / V::kRows), least(m / count), longer(m % count) {}
    int64_t rows(int64_t step) const { return least + (step < longer ? 1 : 0); }

    int64_t count, least, longer;
};

// use() with a number of rows, 1 .. kMost, that is known at run time, as a constant.
template <int kMost, class Use>
static inline void with_rows(int64_t rows, const Use& use) {
    if (rows == kMost) return use(std::integral_constant<int, kMost>{});
    if constexpr (kMost > 1) with_rows<kMost - 1>(rows, use);
}

// Packed rows' block of k from `k`; behind the last one, the first.
template <class V>
static inline const typename V::Element* rows_at(const NtTile& t, int64_t k) {
    const int64_t block = k < t.k ? k / kBlockK : 0;
    return static_cast<const typename V::Element*>(t.a) + block * t.a_block_stride;
}

// Rows that are stored together: lines of D are asked for that many rows ahead. Measured on Zen 4.
inline constexpr int64_t kStoredRows = 4;
DSA_PREFETCHING static void prefetch_place(const NtTile& t, int64_t row, int64_t col) {
    const int64_t size = t.d_is_f32 ? sizeof(float) : sizeof(uint16_t);
    __builtin_prefetch(static_cast<const uint8_t*>(t.d) + (row * t.ldd + col) * size, 1);
}

// Sums of all rows, in panels of columns, to D: all columns of a few rows after one another, which
// lie in few pages, and the lines of the next rows are asked for before.
template <class V>
static inline void store_tile(const NtTile tile, const float* c) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    for (int64_t first = 0; first < tile.m; first += kStoredRows)
        for (int64_t col = 0; col < tile.n; col += kColumns)
            for (int64_t row = first; row < min_of(first + kStoredRows, tile.m); ++row) {
                const float* sums = c + col * tile.m + row * kColumns;
                prefetch_place(tile, row + kStoredRows, col);
                store_sums<V>(tile, row, col, V::load_sum(sums), V::load_sum(sums + V::kLanes));
            }
}

}  // namespace dsa::gemm::cpu
