#pragma once
// The nn tile of NnTile for any vector ISA. V gives, beside what nt_tile.h says:
//   kNnColumns       columns of B that are widened at a time, a multiple of 2 * kLanes
//   widen_rows(state, b, ldb, n, emit)
//                    kStepK rows of so many values of B (n of them, zeros behind), as vectors of
//                    lanes: emit(j, Vec) for each
//   broadcast_a(p)   kStepK bf16 values of A in every lane
//   nn_row(k)        the row of B that pack_row() has as value k of a row of A
// Lanes run along n; one chain of multiply-adds an element, then the scale. A single row meets B in
// registers, more of them a widened panel. Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/nt_tile.h"

namespace dsa::gemm::cpu {

static inline float nn_scale(const NnTile& t, int64_t col) {
    return t.b_scale == nullptr ? 1.0F : t.b_scale[col / kBlockK];
}

// 2 * kLanes columns of a row of D, those that there are; NaNs as in store_sums (one_row.h).
template <class V>
static inline void nn_store(const NnTile& t, int64_t row, int64_t col, typename V::Sum x,
                            typename V::Sum y) {
    V::store_columns(t.d + row * t.ldd + col, t.n - col, V::one_nan(x), V::one_nan(y));
}

// Before rows k and on of kColumns columns of B at b are used: as many rows some way behind them,
// or the first ones of the columns behind.
template <class V, int64_t kColumns, class Code>
DSA_PREFETCHING static void nn_prefetch(const NnTile& t, const Code* b, int64_t k) {
    constexpr int64_t kRowsAhead = 32;
    // One more than the columns fill: they may start inside a line.
    constexpr int64_t kLines = kColumns * static_cast<int64_t>(sizeof(Code)) / 64 + 1;
    b += kRowsAhead * t.ldb + (k + kRowsAhead < kNnK ? 0 : kColumns - kNnK * t.ldb);
#pragma GCC unroll 2
    for (int64_t row = 0; row < V::kStepK; ++row)
        prefetch_lines(reinterpret_cast<const uint8_t*>(b + row * t.ldb), kLines,
                       t.prefetch_into_l2);
}

// kGroups x kNnColumns columns from `col` of a single row.
template <class V, class Code, int kGroups>
static inline void nn_one_row(const NnTile& t, int64_t col) {
    constexpr int kVectors = V::kNnColumns / V::kLanes;  // of a group
    const typename V::State state = V::load_state();
    typename V::Sum acc[kVectors * kGroups];
#pragma GCC unroll 16
    for (auto& x : acc) x = V::zero();
    for (int64_t k = 0; k < kNnK; k += V::kStepK) {
        const auto* b = static_cast<const Code*>(t.b) + V::nn_row(k) * t.ldb + col;
        nn_prefetch<V, kGroups * V::kNnColumns>(t, b, V::nn_row(k));
        const typename V::Vec a = V::broadcast_a(t.a + V::nn_row(k));
        simd::unrolled<kGroups>([&](auto g) DSA_INLINE_LAMBDA {
            V::widen_rows(state, b + g * V::kNnColumns, t.ldb, t.n - col - g * V::kNnColumns,
                          [&](auto j, typename V::Vec x) DSA_INLINE_LAMBDA {
                              acc[kVectors * g + j] = V::dot(acc[kVectors * g + j], a, x);
                          });
        });
    }
#pragma GCC unroll 16
    for (int i = 0; i < kVectors * kGroups; i += 2, col += 2 * V::kLanes) {
        if (col >= t.n) return;
        const typename V::Sum scale = V::set1(nn_scale(t, col));
        nn_store<V>(t, 0, col, V::fma(acc[i], scale, V::zero()),
                    V::fma(acc[i + 1], scale, V::zero()));
    }
}

// kNnColumns columns from `col`, as panels of 2 * kLanes columns one behind another.
template <class V, class Code>
static inline void nn_widen(const NnTile& t, int64_t col, typename V::Element* panels) {
    constexpr int64_t kVec = V::kLanes * V::kStepK;
    const typename V::State state = V::load_state();
    for (int64_t k = 0; k < kNnK; k += V::kStepK, panels += 2 * kVec) {
        const auto* b = static_cast<const Code*>(t.b) + V::nn_row(k) * t.ldb + col;
        nn_prefetch<V, V::kNnColumns>(t, b, V::nn_row(k));
        V::widen_rows(state, b, t.ldb, t.n - col, [&](auto j, typename V::Vec x) DSA_INLINE_LAMBDA {
            V::store(panels + j / 2 * 2 * V::kLanes * kNnK + j % 2 * kVec, x);
        });
    }
}

template <class V, class Code>
static inline void nn_many_rows(const NnTile& t) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    auto* panels = static_cast<typename V::Element*>(t.panel);
    auto* a = panels + kNnK * kTileNn;
    auto* c = reinterpret_cast<float*>(a + t.m * kNnK);
    for (int64_t i = 0; i < t.m; ++i) V::pack_row(t.a + i * t.lda, kNnK, a + i * kNnK);
    for (int64_t col = 0; col < t.n; col += V::kNnColumns)
        nn_widen<V, Code>(t, col, panels + col * kNnK);
    float scale[V::kRows];
    const RowSteps<V> steps(t.m);
    for (int64_t step = 0, row = 0; step < steps.count; row += steps.rows(step), ++step)
        for (int64_t col = 0; col < t.n; col += kColumns) {
            const int64_t rows = steps.rows(step);
            for (float& x : scale) x = nn_scale(t, col);
            multiply_some<V>(rows, {a + row * kNnK, 0, a + (row + rows) * kNnK, panels + col * kNnK,
                                    kNnK, scale, true, c});
            for (int64_t i = 0; i < rows; ++i)
                nn_store<V>(t, row + i, col, V::load_sum(c + i * kColumns),
                            V::load_sum(c + i * kColumns + V::kLanes));
        }
}

template <class V, class Code>
static inline void nn_tile(const NnTile& t) {
    constexpr int kGroups = 4;
    if (t.m > 1) return nn_many_rows<V, Code>(t);
    for (int64_t col = 0; col < t.n; col += kGroups * V::kNnColumns)
        nn_one_row<V, Code, kGroups>(t, col);
}

}  // namespace dsa::gemm::cpu
