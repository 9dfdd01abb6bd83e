#pragma once
// The nt tile with int8 rows: B is requantised per column and 128 of k (int8_tables.h), block sums
// are exact integers, then total = fma(float(sum), a_scale * (b_scale * unit), total), k ascending.
// V gives:
//   Sum, kLanes, zero(), load_sum, store_sum, set1, fma, store_columns   as in nt_tile.h
//   Vec, Element, kStepK, kRows, load(p), broadcast(p)                   likewise
//   IntSum, set1_int(x), to_float(x)
//   dot(acc, a, b)               acc + products of kStepK values of k
//   pack_row(a, valid, out)      128 int8 values of k as Elements; returns what an integer sum
//                                starts from: the opposite of what the form of B adds to it
//   requantise(b, offset, valid, next, panel, unit)   128 values of k (valid of them, zeros behind)
//                                of 2 * kLanes columns as the panel holds them, and what 1 means
//                                for each column; next.column() twice for each column on the way
//   columns_first_rows(conflict) rows up to which all of k of columns comes before the next ones;
//                                conflict: columns_conflict()
//   without_panel(t)             forms of its own for one or a few rows, of equal sums; false where
//                                none serves these rows, and nothing is done
// Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/nt_tile.h"

namespace dsa::gemm::cpu {

// What the rows of a block of k meet.
template <class V>
struct Int8Panel {
    alignas(64) typename V::Element b[2 * V::kLanes * kBlockK];
    alignas(64) float unit[2 * V::kLanes];  // times the block's scale
};

// What integer sums of a tile's rows and the block of k from `k` start from.
static inline const int32_t* row_starts(const NtTile& t, int64_t k) {
    return t.a_start + k / kBlockK * (t.a_block_stride / kBlockK);
}

template <class V, int kRows>
static inline void multiply_int8(const typename V::Element* a, const typename V::Element* next_a,
                                 const Int8Panel<V>& p, int64_t num_k, const float* a_scale,
                                 const int32_t* a_start, bool first, float* c) {
    typename V::IntSum acc[2 * kRows];
#pragma GCC unroll 32
    for (int i = 0; i < 2 * kRows; ++i) acc[i] = V::set1_int(a_start[i / 2]);
    constexpr int64_t kVec = V::kLanes * V::kStepK;
    const typename V::Element* b = p.b;
#pragma GCC unroll 2  // measured on Zen 4: 1.03 with 512 rows
    for (int64_t k = 0; k < num_k; k += V::kStepK, b += 2 * kVec) {
        __builtin_prefetch(next_a + kRows * k);  // as multiply_panel() does
        const typename V::Vec x = V::load(b);
        const typename V::Vec y = V::load(b + kVec);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
            const typename V::Vec value = V::broadcast(a + i * kBlockK + k);
            acc[2 * i] = V::dot(acc[2 * i], value, x);
            acc[2 * i + 1] = V::dot(acc[2 * i + 1], value, y);
        }
    }
    const typename V::Sum unit[2] = {V::load_sum(p.unit), V::load_sum(p.unit + V::kLanes)};
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
        for (int g = 0; g < 2; ++g) {
            float* sum = c + (2 * i + g) * V::kLanes;
            const typename V::Sum scale = V::mul(V::set1(a_scale[i]), unit[g]);
            V::store_sum(sum, V::fma(V::to_float(acc[2 * i + g]), scale,
                                     first ? V::zero() : V::load_sum(sum)));
        }
}

template <class V, int kRows>
static inline void multiply_int8_some(int64_t rows, const typename V::Element* a,
                                      const typename V::Element* next_a, const Int8Panel<V>& p,
                                      int64_t num_k, const float* a_scale, const int32_t* a_start,
                                      bool first, float* c) {
    if (rows == kRows)
        return multiply_int8<V, kRows>(a, next_a, p, num_k, a_scale, a_start, first, c);
    if constexpr (kRows > 1)
        multiply_int8_some<V, kRows - 1>(rows, a, next_a, p, num_k, a_scale, a_start, first, c);
}

template <class V, class Next>
__attribute__((noinline)) static void requantise_panel(const NtTile& t, int64_t k, int64_t col,
                                                       Next next, Int8Panel<V>* panel) {
    const auto* b = static_cast<const uint8_t*>(t.b) + k;
    const float scale = t.b_scale[col / kBlockK * t.b_scale_ld + k / kBlockK];
    constexpr int64_t kColumns = 2 * V::kLanes;
    int64_t offset[kColumns];
    column_offsets<V>(t, col, offset);
    column_offsets<V>(t, col + V::kLanes, offset + V::kLanes);
    V::requantise(b, offset, min_of(t.k - k, kBlockK), next, panel->b, panel->unit);
    for (float* unit = panel->unit; unit < panel->unit + kColumns; unit += V::kLanes)
        V::store_sum(unit, V::mul(V::load_sum(unit), V::set1(scale)));
}

// Adds the block of k from `k` to the sums of all rows and the panel's columns, from `col`; the
// next panel is of the block from next_k. between(): called after each few rows, RowSteps::count
// times in all.
template <class V, class Between>
static inline void multiply_rows(const NtTile& t, int64_t k, int64_t next_k, int64_t col,
                                 const Int8Panel<V>& panel, const float* a_scale,
                                 const Between& between) {
    const int32_t* a_start = row_starts(t, k);
    const typename V::Element* a = rows_at<V>(t, k);
    constexpr int64_t kColumns = 2 * V::kLanes;
    const RowSteps<V> steps(t.m);
    const int64_t num_k = min_of((t.k - k + 3) / 4 * 4, kBlockK);
    float* sums = static_cast<float*>(t.scratch) + col * t.m;
    for (int64_t step = 0, row = 0; step < steps.count; ++step) {
        const int64_t rows = steps.rows(step);
        const typename V::Element* next_a =
            row + rows < t.m ? a + (row + rows) * kBlockK : rows_at<V>(t, next_k);
        multiply_int8_some<V, V::kRows>(rows, a + row * kBlockK, next_a, panel, num_k,
                                        a_scale + row, a_start + row, k == 0,
                                        sums + row * kColumns);
        row += rows;
        between();
    }
}

// All of k of a panel's columns before the next ones: memory sees one ascending run.
template <class V>
static inline void int8_columns_first(const NtTile& t) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    Int8Panel<V> panel;
    float a_scale[kTileRows];
    for (int64_t col = 0; col < t.n; col += kColumns)
        for (int64_t k = 0; k < t.k; k += kBlockK) {
            row_scales(t, k, a_scale);
            requantise_panel<V>(t, k, col, next_columns<1>(t, kColumns, col, k), &panel);
            multiply_rows<V>(t, k, k + kBlockK, col, panel, a_scale, [] {});
        }
    store_tile<V>(t, static_cast<const float*>(t.scratch));
}

// A block of k of all columns before the next one: what many rows have there stays in L2.
template <class V>
static inline void int8_blocks_first(const NtTile& t) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    Int8Panel<V> panel;
    float a_scale[kTileRows];
    for (int64_t k = 0; k < t.k; k += kBlockK) {
        row_scales(t, k, a_scale);
        for (int64_t col = 0; col < t.n; col += kColumns) {
            requantise_panel<V>(t, k, col, NextPanel<1>(t, k, col, kBlockK), &panel);
            PanelBehind<1> behind(t, k, kBlockK, col, 2 * kColumns, kColumns,
                                  RowSteps<V>(t.m).count);
            multiply_rows<V>(t, k, col + kColumns < t.n ? k : k + kBlockK, col, panel, a_scale,
                             [&] { behind.part(); });
        }
    }
    store_tile<V>(t, static_cast<const float*>(t.scratch));
}

template <class V>
static inline void int8_tile(const NtTile& tile) {
    if (V::without_panel(tile)) return;
    const NtTile t = tile;
    if (t.m <= V::columns_first_rows(columns_conflict(t, 1))) return int8_columns_first<V>(t);
    int8_blocks_first<V>(t);
}

template <class V>
static inline void pack_int8_rows(const PackRows& p) {
    const auto* a = static_cast<const int8_t*>(p.a);
    for (int64_t row = 0; row < p.m; ++row) {
        auto* out = static_cast<typename V::Element*>(p.out) + row * kBlockK;
        int32_t* start = p.start + row;
        for (int64_t k = 0; k < p.k; k += kBlockK) {
            *start = V::pack_row(a + row * p.lda + k, min_of(p.k - k, kBlockK), out);
            out += p.block_stride;
            start += p.block_stride / kBlockK;
        }
    }
}

}  // namespace dsa::gemm::cpu
