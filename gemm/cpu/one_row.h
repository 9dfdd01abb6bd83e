#pragma once
// One row of A straight from B (decode): each weight is widened once, in registers. Blocks of 128
// of k are chains of their own until they are added to the total, so several chains run side by
// side: of several blocks where columns are long, and memory sees long ascending runs; of four
// groups of columns where they are short. Columns that the caches serve badly are copied first
// (with_copies). The order of operations is that of many rows. V as in nt_tile.h. Everything is
// static inline: internal to the ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/column_runs.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/tile_rows.h"

namespace dsa::gemm::cpu {

// Lines of runs that the hardware has brought to L2, into L1, where loads of many come before what
// is done with them. To be called for every kBetweenK values of kDirectK, each of the kLanes
// columns at b + offset[] in turn. (Measured on Granite Rapids.)
template <class V, class Code, int kBlocks>
DSA_PREFETCHING static void ask_for_lines(const Code* b, const int64_t* offset, int64_t at) {
    constexpr int64_t kDirectK = V::template kDirectK<Code>;
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Code));
    constexpr int64_t kAhead = sizeof(Code) == 1 ? 512 : 384;  // values
    constexpr int64_t kColumns = V::template kBetweenK<Code> * V::kLanes / kDirectK;
    for (int64_t block = 0; block < kBlocks; ++block, b += kBlockK)
        for (int64_t j = 0; j < kColumns; ++j) {
            const Code* ahead = b + kAhead + offset[at * V::kLanes / kDirectK + j];
            for (int64_t i = 0; i < kDirectK; i += kLine) __builtin_prefetch(ahead + i);
        }
}

// Adds kBlocks blocks from k on of kGroups x kLanes columns to their totals. The columns are at b +
// offset[j], from k on, zeros behind their end.
template <class V, class Code, int kGroups, int kBlocks, class Next>
static inline void add_blocks(const NtTile& t, const typename V::State& state, Next& next,
                              int64_t col, const Code* b, const int64_t* offset, int64_t k,
                              typename V::Sum* total) {
    constexpr auto kBytes = static_cast<int64_t>(sizeof(Code));
    constexpr int kChains = kGroups * kBlocks;  // chain c: block c / kGroups of group c % kGroups
    const auto* a = static_cast<const typename V::Element*>(t.a) + k / kBlockK * t.a_block_stride;
    for (int64_t i = 0; i < kBlocks; ++i) next.block(k + i * kBlockK);
    typename V::Sum acc[kChains];
#pragma GCC unroll 4
    for (auto& x : acc) x = V::zero();
    const int64_t num_k = kBlocks > 1 ? kBlockK : loaded_k<V>(t.k - k);
    for (int64_t part = 0; part < num_k; part += V::template kDirectK<Code>) {
        V::template widen_direct<Code, kGroups, kBlocks>(
            state, b + part, offset,
            [&](int64_t at) DSA_INLINE_LAMBDA {
                if constexpr (Next::kInRuns) {
                    if constexpr (V::template kAsksForLines<Code>)
                        ask_for_lines<V, Code, kBlocks>(b + part, offset, at);
                } else {
                    next.lines(kChains * V::kLanes * kBytes * V::template kBetweenK<Code> / 64);
                }
            },
            [&](auto c, int64_t step, auto column) DSA_INLINE_LAMBDA {
                const auto* values = a + c / kGroups * t.a_block_stride + part + step * V::kStepK;
                acc[c] = V::dot_at(acc[c], values, column);
            });
    }
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
        const int64_t at = k + c / kGroups * kBlockK;
        const float scale = row_scale(t, 0, at) * column_scale<V, Code>(t, col, at);
        total[c % kGroups] = V::fma(acc[c], V::set1(scale), total[c % kGroups]);
    }
}

// Columns of kGroups visits from `i` on, kBlocks blocks of k at a time.
template <class V, class Code, int kGroups, int kBlocks, class Next>
static inline void one_row_columns(const NtTile& t, const Visits<V::kLanes>& visits, int64_t i,
                                   float* sums) {
    const typename V::State state = V::load_state();
    const int64_t col = visits[i].column[0];
    int64_t offset[kGroups * V::kLanes];
    for (int g = 0; g < kGroups; ++g) visits[i + g].offsets(t, offset + g * V::kLanes);
    Next next(t, visits, i, whole_range(t), offset);
    typename V::Sum total[kGroups];
#pragma GCC unroll 4
    for (auto& x : total) x = V::zero();
    const auto* b = static_cast<const Code*>(t.b);
    int64_t k = 0;
    if constexpr (kGroups == 1) {
        constexpr int64_t kRun = kCopiedRun<Code>;
        constexpr int kLeast = sizeof(Code) == 1 ? 2 : 1;  // measured on Zen 4
        constexpr int kCopied = kBlocks > kLeast ? kBlocks : kLeast;
        static_assert(kRun % (kCopied * kBlockK) == 0);
        k = with_copies<Code, V::kLanes, kRun>(
            t, offset, V::kLinesInParts,
            [&](const Code* values, const int64_t* places, int64_t first) {
                for (int64_t part = 0; part < kRun; part += kCopied * kBlockK)
                    add_blocks<V, Code, 1, kCopied>(t, state, next, col, values + part, places,
                                                    first + part, total);
            });
    }
    if constexpr (kBlocks > 1)
        for (; k + kBlocks * kBlockK <= t.k; k += kBlocks * kBlockK)
            add_blocks<V, Code, kGroups, kBlocks>(t, state, next, col, b + k, offset, k, total);
    if constexpr (kBlocks > 2)
        for (; k + 2 * kBlockK <= t.k; k += 2 * kBlockK)
            add_blocks<V, Code, kGroups, 2>(t, state, next, col, b + k, offset, k, total);
    for (; k + kBlockK <= t.k; k += kBlockK)
        add_blocks<V, Code, kGroups, 1>(t, state, next, col, b + k, offset, k, total);
    if (k < t.k) {
        constexpr int64_t kColumns = kGroups * V::kLanes;
        Code rest[kColumns * kBlockK];
        copy_rest<Code, kColumns, kBlockK>(t, offset, k, rest);
        for (int64_t j = 0; j < kColumns; ++j) offset[j] = j * kBlockK;
        add_blocks<V, Code, kGroups, 1>(t, state, next, col, rest, offset, k, total);
    }
    for (int g = 0; g < kGroups; ++g) V::store_sum(sums + (i + g) * V::kLanes, total[g]);
}

template <class V, class Code>
static inline void one_row_in_runs(const NtTile& t) {
    using Next = NextOfRuns<sizeof(Code), V::kLanes>;
    const Visits<V::kLanes> visits(t);
    alignas(64) float sums[kTileColumns];
    for (int64_t i = 0; i < visits.count(); ++i)
        one_row_columns<V, Code, 1, V::template kBlocksOfOneRow<Code>, Next>(t, visits, i, sums);
    store_visits<V>(t, visits, sums);
}

template <class V, class Code, template <int64_t> class Lines>
static inline void one_row_of_neighbours(const NtTile& t) {
    constexpr int64_t kSize = sizeof(Code);
    const Visits<V::kLanes> visits(t);
    alignas(64) float sums[kTileColumns];
    int64_t i = 0;
    if (t.k < V::template kLongColumn<Code>)
        for (; i + 4 <= visits.count(); i += 4)
            one_row_columns<V, Code, 4, 1, NextOfNeighbours<kSize, 4 * V::kLanes, Lines>>(t, visits,
                                                                                          i, sums);
    for (; i < visits.count(); ++i)
        one_row_columns<V, Code, 1, V::template kBlocksOfOneRow<Code>,
                        NextOfNeighbours<kSize, V::kLanes, Lines>>(t, visits, i, sums);
    store_visits<V>(t, visits, sums);
}

template <class V, class Code>
static inline void nt_one_row(const NtTile& t) {
    constexpr int64_t kRun = V::template kRunColumn<Code>;
    if (goes_in_runs(t)) return one_row_in_runs<V, Code>(t);
    if (kRun > 0 && t.k >= kRun) return one_row_of_neighbours<V, Code, NextRun>(t);
    one_row_of_neighbours<V, Code, NextColumns>(t);
}

}  // namespace dsa::gemm::cpu
