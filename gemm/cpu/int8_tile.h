#pragma once
// The nt tile with int8 rows: B is requantised per column and 128 of k (int8_tables.h), block sums
// are exact integers, then total = fma(float(sum), a_scale * (b_scale * unit), total), k ascending.
// V gives:
//   Sum, kLanes, zero(), load_sum, store_sum, set1, fma, store_columns   as in nt_tile.h
//   Vec, Element, kStepK, kRows, load(p), broadcast(p)                   likewise
//   kPanelBlocks                 likewise
//   IntSum, set1_int(x), to_float(x)
//   kShifts                      whether many rows have sums shifted rather than scales multiplied:
//   load_ints(p), shift_left(x, n)   as IntSum
//   shifts(unit, shift)          of units 2^e, e - least where the unit is not 0, 0 where it is;
//                                returns {least, most} of the biased exponents
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

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/nt_tile.h"

namespace dsa::gemm::cpu {

// What rows meet: kPanelBlocks blocks of k of 2 * kLanes columns. Units are powers of two
// (int8_tables.h) times the scale of B; where those of a block are not too far apart, shift and
// base say the same: unit = base * 2^shift.
template <class V>
struct Int8Block {
    alignas(64) typename V::Element b[2 * V::kLanes * kBlockK];
    alignas(64) float unit[2 * V::kLanes];
    alignas(64) int32_t shift[2 * V::kLanes];
    float base;
    bool has_shifts;
};
template <class V>
struct Int8Panel {
    Int8Block<V> block[V::kPanelBlocks];
};

// Sums of 128 products are below 2^21.
inline constexpr int32_t kMaxShift = 10;

// What integer sums of a tile's rows and the block of k from `k` start from.
static inline const int32_t* row_starts(const NtTile& t, int64_t k) {
    return t.a_start + k / kBlockK * (t.a_block_stride / kBlockK);
}

template <class V>
struct Int8Visit : PanelVisit<V> {  // without b
    using Product = typename V::IntSum;

    const Int8Panel<V>* panel;
    const int32_t* start;  // [rows], those of the next block start_stride behind
    int64_t start_stride;

    void move(int64_t rows) {
        PanelVisit<V>::move(rows);
        start += rows;
    }
};

// Integer sums of kRows rows x 2 * kLanes columns over one block of k; as multiply_block().
template <class V, int kRows>
__attribute__((always_inline)) static inline void multiply_int8_block(
    const typename V::Element* a, const typename V::Element* next_a, const typename V::Element* b,
    int64_t num_k, const int32_t* start, typename V::IntSum* acc) {
#pragma GCC unroll 32
    for (int i = 0; i < 2 * kRows; ++i) acc[i] = V::set1_int(start[i / 2]);
    constexpr int64_t kVec = V::kLanes * V::kStepK;
    for (int64_t k = 0; k < num_k; k += V::kStepK, b += 2 * kVec) {
        __builtin_prefetch(next_a + kRows * k);
        const typename V::Vec x = V::load(b);
        const typename V::Vec y = V::load(b + kVec);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
            const typename V::Vec value = V::broadcast(a + i * kBlockK + k);
            acc[2 * i] = V::dot(acc[2 * i], value, x);
            acc[2 * i + 1] = V::dot(acc[2 * i + 1], value, y);
        }
    }
}

// As multiply_panel(). Integer sums are scaled by shifts, which the units that multiply have no
// part in, or by units: same bits where both serve.
template <class V, bool kByShifts, int kRows>
static inline void multiply_int8(const Int8Visit<V>& v) {
    add_blocks<V, kRows>(
        v,
        [&](int64_t at, int64_t num_k, typename V::IntSum* acc) DSA_INLINE_LAMBDA {
            multiply_int8_block<V, kRows>(v.a + at * v.a_block_stride,
                                          v.next_a + at * v.a_block_stride, v.panel->block[at].b,
                                          num_k, v.start + at * v.start_stride, acc);
        },
        [&](int64_t at) DSA_INLINE_LAMBDA {
            const float* scale = v.scale + at * kTileRows;
            const Int8Block<V>& block = v.panel->block[at];
            if constexpr (kByShifts) {
                const typename V::IntSum x = V::load_ints(block.shift);
                const typename V::IntSum y = V::load_ints(block.shift + V::kLanes);
                return [=](typename V::IntSum sum, int i, typename V::Sum total) DSA_INLINE_LAMBDA {
                    return V::fma(V::to_float(V::shift_left(sum, i % 2 == 0 ? x : y)),
                                  V::set1(scale[i / 2]), total);
                };
            } else {
                const typename V::Sum x = V::load_sum(block.unit);
                const typename V::Sum y = V::load_sum(block.unit + V::kLanes);
                return [=](typename V::IntSum sum, int i, typename V::Sum total) DSA_INLINE_LAMBDA {
                    return V::fma(V::to_float(sum),
                                  V::mul(V::set1(scale[i / 2]), i % 2 == 0 ? x : y), total);
                };
            }
        });
}

// Units are powers of two here, 0 for columns of zeros and NaN (exponent 255) for those with a NaN;
// where there are no others, base is not a finite number.
template <class V>
static inline void find_shifts(float scale, Int8Block<V>* block) {
    const auto [least, most] = V::shifts(block->unit, block->shift);
    const int32_t bits = least << 23;
    __builtin_memcpy(&block->base, &bits, sizeof(bits));
    block->base *= scale;
    block->has_shifts = most - least <= kMaxShift;
}

// The block of k from `k`, whose columns are at b + offset[j]. next: prefetches.
template <class V, class Next>
__attribute__((noinline)) static void requantise_block(const NtTile& t, int64_t k, int64_t col,
                                                       const uint8_t* b, const int64_t* offset,
                                                       Next next, Int8Block<V>* block) {
    const float scale = t.b_scale[col / kBlockK * t.b_scale_ld + k / kBlockK];
    V::requantise(b, offset, min_of(t.k - k, kBlockK), next, block->b, block->unit);
    if constexpr (V::kShifts)
        if (t.m >= kManyRows) find_shifts(scale, block);
    for (float* unit = block->unit; unit < block->unit + 2 * V::kLanes; unit += V::kLanes)
        V::store_sum(unit, V::mul(V::load_sum(unit), V::set1(scale)));
}

// The panel from `k` and `col`; next(k): prefetches of a block. Columns that share sets of L1 are
// copied side by side: their lines push each other out between the two passes over a block (1 KB
// apart and more: measured on Zen 4).
template <class V, class Next>
static inline void requantise_panel(const NtTile& t, int64_t k, int64_t col, const Next& next,
                                    Int8Panel<V>* panel) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    int64_t offset[kColumns];
    column_offsets<V>(t, col, offset);
    column_offsets<V>(t, col + V::kLanes, offset + V::kLanes);
    const auto* b = static_cast<const uint8_t*>(t.b) + k;
    alignas(64) uint8_t copies[kColumns * kPanelK<V>];
    if (V::kPanelBlocks > 1 && t.ldb % 1024 == 0 && k + kPanelK<V> <= t.k) {
        copy_columns<uint8_t, kColumns, kPanelK<V>>(t, offset, k, copies);
        for (int64_t j = 0; j < kColumns; ++j) offset[j] = j * kPanelK<V>;
        b = copies;
    }
    for (int64_t at = 0; at < panel_blocks<V>(t, k); ++at)
        requantise_block<V>(t, k + at * kBlockK, col, b + at * kBlockK, offset,
                            next(k + at * kBlockK), &panel->block[at]);
}

// Scales of rows for Int8Scales by shifts; false where a product of scales is not a normal number
// for some row and column: rounding would depend on the place of the power of two.
template <class V>
static inline bool scales_by_shifts(const NtTile& t, int64_t k, const Int8Panel<V>& panel,
                                    const PanelScales<V>& a_scale, PanelScales<V>* scale) {
    constexpr float kLeast = 0x1p-126F;
    constexpr float kMost = 0x1p100F;
    for (int64_t at = 0; at < panel_blocks<V>(t, k); ++at) {
        const float base = panel.block[at].base;
        const bool is_normal = std::fabs(base) >= kLeast && std::fabs(base) <= kMost;
        if (!panel.block[at].has_shifts || !is_normal) return false;
        int32_t outside = 0;
        for (int64_t i = 0; i < t.m; ++i) {
            const float a = a_scale.of_block[at][i];
            const float x = std::fabs(a * base);
            scale->of_block[at][i] = a * base;
            outside |= static_cast<int32_t>(!(x <= kMost)) |
                       (static_cast<int32_t>(x < kLeast) & static_cast<int32_t>(a != 0.0F));
        }
        if (outside != 0) return false;
    }
    return true;
}

// Adds the panel from `k` and `col` to the sums of all rows; between() as in walk_rows().
template <class V, class Between>
static inline void multiply_requantised(const NtTile& t, int64_t k, int64_t next_k, int64_t col,
                                        const Int8Panel<V>& panel, const PanelScales<V>& a_scale,
                                        const Between& between) {
    PanelScales<V> scale;
    const bool by_shifts =
        V::kShifts && t.m >= kManyRows && scales_by_shifts<V>(t, k, panel, a_scale, &scale);
    const Int8Visit<V> first{{rows_at<V>(t, k), t.a_block_stride, nullptr, nullptr,
                              min_of((t.k - k + 3) / 4 * 4, kPanelK<V>),
                              by_shifts ? scale.of_block[0] : a_scale.of_block[0], k == 0,
                              static_cast<float*>(t.scratch) + col * t.m},
                             &panel,
                             row_starts(t, k),
                             t.a_block_stride / kBlockK};
    const auto walk = [&](auto shifts) {
        walk_rows<V>(
            t, next_k, first,
            [](int64_t rows, const Int8Visit<V>& v) {
                with_rows<V::kRows>(
                    rows, [&](auto some) { multiply_int8<V, decltype(shifts)::value, some>(v); });
            },
            between);
    };
    if constexpr (V::kShifts)
        if (by_shifts) return walk(std::true_type{});
    walk(std::false_type{});
}

// All of k of a panel's columns before the next ones: memory sees one ascending run.
template <class V>
static inline void int8_columns_first(const NtTile& t) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    Int8Panel<V> panel;
    PanelScales<V> a_scale;
    for (int64_t col = 0; col < t.n; col += kColumns)
        for (int64_t k = 0; k < t.k; k += kPanelK<V>) {
            a_scale.load(t, k);
            requantise_panel<V>(
                t, k, col, [&](int64_t from) { return next_columns<1>(t, kColumns, col, from); },
                &panel);
            auto behind =
                PanelBehind<1>::of_columns(t, k, kPanelK<V>, col, kColumns, RowSteps<V>(t.m).count);
            multiply_requantised<V>(t, k, k + kPanelK<V>, col, panel, a_scale,
                                    [&] { behind.part(); });
        }
    store_tile<V>(t, static_cast<const float*>(t.scratch));
}

// A panel of all columns before the next blocks of k: what many rows have there stays in L2.
template <class V>
static inline void int8_blocks_first(const NtTile& t) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    Int8Panel<V> panel;
    PanelScales<V> a_scale;
    for (int64_t k = 0; k < t.k; k += kPanelK<V>) {
        a_scale.load(t, k);
        for (int64_t col = 0; col < t.n; col += kColumns) {
            requantise_panel<V>(
                t, k, col, [&](int64_t from) { return NextPanel<1>(t, from, col, kPanelK<V>); },
                &panel);
            PanelBehind<1> behind(t, k, kPanelK<V>, col, 2 * kColumns, kColumns,
                                  RowSteps<V>(t.m).count);
            multiply_requantised<V>(t, k, col + kColumns < t.n ? k : k + kPanelK<V>, col, panel,
                                    a_scale, [&] { behind.part(); });
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

}  // namespace dsa::gemm::cpu
