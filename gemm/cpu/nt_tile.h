#pragma once
// The nt tile of NtTile for any vector ISA: lanes are columns of B, so that no sum crosses lanes.
// V (a type of the ISA file's anonymous namespace) gives:
//   Sum, kLanes                  fp32 vector and its lanes, each a column; zero(), set1(x),
//                                load_sum(p), store_sum(p, v), fma(a, b, c), one_nan(x): NaNs as
//                                the same one
//   Vec, Element, kStepK         kStepK values of k for each lane; type of a widened value
//   kRows                        rows of A that meet 2 * kLanes columns of B in registers
//   kPanelBlocks                 blocks of k that they meet before sums go to memory again
//   kLongColumn<Code>            values of k from which on a single row reads kLanes columns by
//   kBlocksOfOneRow<Code>        blocks at a time, 1, 2 or 4 (measured)
//   kRunColumn<Code>             values of k from which on it prefetches as NextRun (columns.h)
//                                instead of NextColumns (measured); 0: never
//   kLoopRows, multiply<kRows>(a, next_a, b, num_k, acc)   rows from which on it has its own loop
//                                of products; more than kRows: never
//   kFewRows                     rows up to which B goes from memory to registers without a panel
//                                (few_rows.h; 0: never),
//   few_rows_serve<Code>(t)      where that is faster,
//   kRowsOfFourGroups            and rows up to which that is 4 * kLanes columns at a time
//   kStagedRows                  rows up to which it is staged in memory (staged_rows.h; 0: never)
//   pack_row(a, valid, out)      128 values of k of a row of A (bf16 or e4m3; valid of them, zeros
//                                behind) as Elements, in the order of k of widen()
//   Raw, kLoadK, load_columns(b, offset, valid, out)   kLoadK values of k (valid of them, zeros
//                                behind) of the kLanes columns at b + offset[j], transposed:
//                                kRaws<Code> of Raw for each four of k
//   State, load_state()          constants that widening keeps in registers
//   widen<Code>(state, raw, emit)   four values of k: emit(step, Vec) for each step
//   kDirectK<Code>, widen_direct<Code, kGroups, kBlocks>(state, b, offset, between, emit)
//                                straight from B, without a panel: kDirectK values of k of chains c
//                                in 0 .. kGroups * kBlocks - 1, block c / kGroups of group c %
//                                kGroups of the columns at b + offset[]: emit(c, step, Vec);
//                                between(k) on the way, for every kBetweenK<Code> values of k
//   kLinesInParts                whether its loads are parts of cache lines (copies_pay)
//   kAsksForLines<Code>          whether ask_for_lines() (one_row.h) pays (measured)
//   kWidened<Code>               what widened values are less than true ones by: a power of two
//   load(p), store(p, v), broadcast(p), dot(acc, a, b)
//   dot_at(acc, p, b)            dot(acc, broadcast(p), b)
//   store_columns(d, n, x, y)    the first n of the columns of two sums, as fp32 or bf16
// Forms with one order of operations: a single row straight from B (one_row.h), a few likewise
// (few_rows.h) or from what was staged of it (staged_rows.h), and blocks of 128 of k: B widened
// into a panel that all rows meet, sums in fp32 beside. Everything is static inline: internal to
// the ISA file.

#include <cstdint>
#include <utility>

#include "gemm/cpu/columns.h"
#include "gemm/cpu/few_rows.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/one_row.h"
#include "gemm/cpu/staged_rows.h"
#include "gemm/cpu/tile_rows.h"

namespace dsa::gemm::cpu {

// ---- many rows ----

// A panel: kPanelBlocks blocks of k (what there is of them) of 2 * kLanes columns.
template <class V>
inline constexpr int64_t kPanelK = int64_t{V::kPanelBlocks} * kBlockK;

// Blocks of k that a panel from `k` has.
template <class V>
static inline int64_t panel_blocks(const NtTile& t, int64_t k) {
    return (min_of(t.k - k, kPanelK<V>) + kBlockK - 1) / kBlockK;
}

// Rows of A that meet a panel of B: kPanelBlocks blocks of k, or those that are left.
template <class V>
struct PanelVisit {
    using Product = typename V::Sum;

    const typename V::Element* a;  // [rows][128], those of the next block a_block_stride behind
    int64_t a_block_stride;
    const typename V::Element* next_a;  // rows whose turn comes next, as a
    const typename V::Element* b;       // [num_k / kStepK][2] vectors
    int64_t num_k;
    const float* scale;  // [rows], those of the next block kTileRows behind
    bool first;          // what c holds does not count
    float* c;            // [rows][2] vectors

    void move(int64_t rows) {
        a += rows * kBlockK;
        scale += rows;
        c += rows * 2 * V::kLanes;
    }
};

// Sums of kRows rows x 2 * kLanes columns over one block of k, num_k values of it: acc. The next
// rows are prefetched among the products.
template <class V, int kRows>
__attribute__((always_inline)) static inline void multiply_block(const typename V::Element* a,
                                                                 const typename V::Element* next_a,
                                                                 const typename V::Element* b,
                                                                 int64_t num_k,
                                                                 typename V::Sum* acc) {
#pragma GCC unroll 32
    for (int i = 0; i < 2 * kRows; ++i) acc[i] = V::zero();
    constexpr int64_t kVec = V::kLanes * V::kStepK;
    int64_t k = 0;
    if constexpr (kRows >= V::kLoopRows) {
        V::template multiply<kRows>(a, next_a, b, num_k, acc);
        k = num_k;
    }
    for (; k < num_k; k += V::kStepK) {
        __builtin_prefetch(next_a + kRows * k);
        const typename V::Vec x = V::load(b + 2 * V::kLanes * k);
        const typename V::Vec y = V::load(b + 2 * V::kLanes * k + kVec);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
            if constexpr (V::kPanelBlocks > 1) {  // 1.01 on Zen 4 (measured)
                acc[2 * i] = V::dot_at(acc[2 * i], a + i * kBlockK + k, x);
                acc[2 * i + 1] = V::dot_at(acc[2 * i + 1], a + i * kBlockK + k, y);
            } else {
                const typename V::Vec value = V::broadcast(a + i * kBlockK + k);
                acc[2 * i] = V::dot(acc[2 * i], value, x);
                acc[2 * i + 1] = V::dot(acc[2 * i + 1], value, y);
            }
        }
    }
}

// Adds to the sums of kRows rows x 2 * kLanes columns, block by block of k: products(at, num_k,
// acc) are those of the panel's block `at`, and scaling(at)(product, i, total) what product i of
// them makes of a total. Where a panel has several blocks, totals stay in registers from one to the
// next: on Zen 4 stores of vectors hold up the products (measured).
template <class V, int kRows, class Visit, class Products, class Scaling>
__attribute__((always_inline)) static inline void add_blocks(const Visit& v,
                                                             const Products& products,
                                                             const Scaling& scaling) {
    typename Visit::Product acc[2 * kRows];
    if constexpr (V::kPanelBlocks == 1) {
        products(0, v.num_k, acc);
        const auto scaled = scaling(0);
#pragma GCC unroll 32
        for (int i = 0; i < 2 * kRows; ++i) {
            float* sum = v.c + i * V::kLanes;
            V::store_sum(sum, scaled(acc[i], i, v.first ? V::zero() : V::load_sum(sum)));
        }
    } else {
        typename V::Sum total[2 * kRows];
#pragma GCC unroll 32
        for (int i = 0; i < 2 * kRows; ++i)
            total[i] = v.first ? V::zero() : V::load_sum(v.c + i * V::kLanes);
        for (int64_t k = 0, at = 0; k < v.num_k; k += kBlockK, ++at) {
            products(at, min_of(v.num_k - k, kBlockK), acc);
            const auto scaled = scaling(at);
#pragma GCC unroll 32
            for (int i = 0; i < 2 * kRows; ++i) total[i] = scaled(acc[i], i, total[i]);
        }
#pragma GCC unroll 32
        for (int i = 0; i < 2 * kRows; ++i) V::store_sum(v.c + i * V::kLanes, total[i]);
    }
}

// c = a b * scale + (first ? 0 : c) for kRows rows x 2 * kLanes columns.
template <class V, int kRows>
static inline void multiply_panel(const PanelVisit<V>& v) {
    add_blocks<V, kRows>(
        v,
        [&](int64_t at, int64_t num_k, typename V::Sum* acc) DSA_INLINE_LAMBDA {
            multiply_block<V, kRows>(v.a + at * v.a_block_stride, v.next_a + at * v.a_block_stride,
                                     v.b + at * kBlockK * 2 * V::kLanes, num_k, acc);
        },
        [&](int64_t at) DSA_INLINE_LAMBDA {
            const float* scale = v.scale + at * kTileRows;
            return [=](typename V::Sum product, int i, typename V::Sum total)
                       DSA_INLINE_LAMBDA { return V::fma(product, V::set1(scale[i / 2]), total); };
        });
}

// As multiply_panel for a number of rows, at most V::kRows, that is known at run time.
template <class V>
static inline void multiply_some(int64_t rows, const PanelVisit<V>& v) {
    with_rows<V::kRows>(rows, [&](auto some) { multiply_panel<V, some>(v); });
}

// kLoadK values of k from `part` of a panel on, whose columns are at b + offset[j], as far as the
// `valid` ones of k go, into the panel as its columns of `group`.
template <class V, class Code, class Next>
__attribute__((always_inline)) static inline void widen_part(const typename V::State& state,
                                                             const Code* b, const int64_t* offset,
                                                             int64_t valid, int64_t group,
                                                             int64_t part, Next& next,
                                                             typename V::Element* panel) {
    constexpr int64_t kVec = V::kLanes * V::kStepK;
    constexpr int64_t kRaws = V::template kRaws<Code>;
    typename V::Raw raw[V::kLoadK / 4 * kRaws];
    V::load_columns(b + part, offset, valid - part, raw);
#pragma GCC unroll 16
    for (int64_t i = 0; i < V::kLoadK; i += 4) {
        if (i % (kPanelK<V> / V::kLanes / 2) == 0) next.column();  // twice for each column
        V::template widen<Code>(state, raw + i / 4 * kRaws, [&](int64_t step, auto column) {
            V::store(panel + ((part + i) / V::kStepK + step) * 2 * kVec + group * kVec, column);
        });
    }
}

// The panel from `k` and `col`.
template <class V, class Code, class Next>
__attribute__((noinline)) static void widen_panel(const NtTile& t, int64_t k, int64_t col,
                                                  Next next, typename V::Element* panel) {
    const typename V::State state = V::load_state();
    const auto* b = static_cast<const Code*>(t.b) + k;
    for (int64_t group = 0; group < 2; ++group) {
        int64_t offset[V::kLanes];
        column_offsets<V>(t, col + group * V::kLanes, offset);
        for (int64_t part = 0; part < min_of(t.k - k, kPanelK<V>); part += V::kLoadK)
            widen_part<V>(state, b, offset, t.k - k, group, part, next, panel);
    }
}

// As widen_panel, which is faster for a panel at once (measured with AVX2), but piece by piece: a
// piece is kLoadK values of kLanes columns. Prefetches the next panel of these columns.
template <class V, class Code>
class PanelPieces {
  public:
    static constexpr int64_t kParts = kPanelK<V> / V::kLoadK;
    static constexpr int64_t kPieces = 2 * kParts;

    PanelPieces(const NtTile& t, int64_t k, int64_t col, typename V::Element* panel)
        : b_(static_cast<const Code*>(t.b) + k),
          valid_(t.k - k),
          next_(t, k, col, kPanelK<V>),
          panel_(panel) {
        column_offsets<V>(t, col, offset_);
        column_offsets<V>(t, col + V::kLanes, offset_ + V::kLanes);
    }

    // The next `count` pieces, or those that are left.
    __attribute__((noinline)) void widen(int64_t count) {
        if (done_ == kPieces) return;  // without loading the state
        const typename V::State state = V::load_state();
        for (; count > 0 && done_ < kPieces; --count, ++done_) {
            const int64_t group = done_ / kParts;
            const int64_t part = done_ % kParts * V::kLoadK;
            if (part < valid_)
                widen_part<V>(state, b_, offset_ + group * V::kLanes, valid_, group, part, next_,
                              panel_);
        }
    }

  private:
    const Code* b_;
    int64_t valid_;
    int64_t offset_[2 * V::kLanes];
    NextPanel<sizeof(Code)> next_;
    typename V::Element* panel_;
    int64_t done_ = 0;
};

// Of the rows' block of k from `k`.
static inline void row_scales(const NtTile& t, int64_t k, float* scale) {
    for (int64_t i = 0; i < t.m; ++i) scale[i] = row_scale(t, i, k);
}

// Those of a panel's blocks.
template <class V>
struct PanelScales {
    void load(const NtTile& t, int64_t k) {
        for (int64_t block = 0; block < panel_blocks<V>(t, k); ++block)
            row_scales(t, k + block * kBlockK, of_block[block]);
    }
    float of_block[V::kPanelBlocks][kTileRows];
};

// All rows meet a panel, some at a time: multiply(rows, visit), then between(), RowSteps::count
// times in all. The visit is that of the first rows; the next panel is of the blocks from next_k.
template <class V, class Visit, class Multiply, class Between>
__attribute__((always_inline)) static inline void walk_rows(const NtTile& t, int64_t next_k,
                                                            Visit visit, const Multiply& multiply,
                                                            const Between& between) {
    const RowSteps<V> steps(t.m);
    for (int64_t step = 0; step < steps.count; ++step) {
        const int64_t rows = steps.rows(step);
        visit.next_a = step + 1 < steps.count ? visit.a + rows * kBlockK : rows_at<V>(t, next_k);
        multiply(rows, visit);
        visit.move(rows);
        between();
    }
}

// Adds the panel from `k` and `col`, which is widened, to the sums of all rows; between() as in
// walk_rows().
template <class V, class Code, class Between>
static inline void multiply_widened(const NtTile& t, int64_t k, int64_t next_k, int64_t col,
                                    const typename V::Element* panel, const PanelScales<V>& a_scale,
                                    float* c, const Between& between) {
    PanelScales<V> scale;
    for (int64_t block = 0; block < panel_blocks<V>(t, k); ++block) {
        const float b_scale = column_scale<V, Code>(t, col, k + block * kBlockK);
        for (int64_t i = 0; i < t.m; ++i)
            scale.of_block[block][i] = a_scale.of_block[block][i] * b_scale;
    }
    const int64_t num_k = loaded_k<V>(t.k - k, kPanelK<V>);
    walk_rows<V>(t, next_k,
                 PanelVisit<V>{rows_at<V>(t, k), t.a_block_stride, nullptr, panel, num_k,
                               scale.of_block[0], k == 0, c + col * t.m},
                 multiply_some<V>, between);
}

// A panel of all columns before the next blocks of k: what many rows have there stays in L2. Each
// panel is widened among the products of the one before, which leave the units of shuffles idle.
template <class V, class Code>
static inline void nt_many_rows(const NtTile t, float* c, typename V::Element* panel) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    static_assert(kColumns * kPanelK<V> * sizeof(typename V::Element) <= kNtPanelBytes);
    using Pieces = PanelPieces<V, Code>;
    const int64_t steps = RowSteps<V>(t.m).count;
    const int64_t step_pieces = (Pieces::kPieces + steps - 1) / steps;
    typename V::Element* next_panel = panel + kColumns * kPanelK<V>;
    PanelScales<V> a_scale;
    Pieces pieces(t, 0, 0, panel);
    pieces.widen(Pieces::kPieces);
    for (int64_t k = 0; k < t.k; k += kPanelK<V>) {
        a_scale.load(t, k);
        for (int64_t col = 0; col < t.n; col += kColumns) {
            const bool last_columns = col + kColumns >= t.n;
            const int64_t next_k = last_columns ? k + kPanelK<V> : k;
            if (next_k < t.k)
                pieces = Pieces(t, next_k, last_columns ? 0 : col + kColumns, next_panel);
            PanelBehind<sizeof(Code)> behind(t, k, kPanelK<V>, col, 2 * kColumns, kColumns, steps);
            multiply_widened<V, Code>(t, k, next_k, col, panel, a_scale, c, [&] {
                pieces.widen(step_pieces);
                behind.part();
            });
            std::swap(panel, next_panel);
        }
    }
    store_tile<V>(t, c);
}

template <class V, class Code>
static inline void nt_tile(const NtTile& t) {
    if (t.m == 1) return nt_one_row<V, Code>(t);
    if constexpr (V::kStagedRows > 1)
        if (t.m <= V::kStagedRows) return staged_rows<V, Code>(t);
    if constexpr (V::kFewRows > 1)
        if (t.m <= V::kFewRows && V::template few_rows_serve<Code>(t))
            return few_rows<V, Code, V::kFewRows>(t);
    auto* c = static_cast<float*>(t.scratch);
    auto* panel = reinterpret_cast<typename V::Element*>(c + kTileRows * kTileColumns);
    nt_many_rows<V, Code>(t, c, panel);
}

}  // namespace dsa::gemm::cpu
