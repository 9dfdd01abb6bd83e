#pragma once
// One row of A straight from B (decode): each weight is widened once, in registers. Blocks of 128
// of k are chains of their own until they are added to the total, so several chains run side by
// side: of several blocks where columns are long, and memory sees long ascending runs; of four
// groups of columns where they are short. Columns that the caches serve badly are copied first
// (with_copies). The order of operations is that of many rows. V as in nt_tile.h. Everything is
// static inline: internal to the ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/tile_rows.h"

namespace dsa::gemm::cpu {

// Where loads of many lines come before what is done with them: the lines of the next loads, which
// are in L2, into L1. To be called for every kBetweenK values of kDirectK, each of the kLanes
// columns at b + offset[] in turn. (Measured on Granite Rapids.)
template <class V, class Code, int kGroups, int kBlocks>
DSA_PREFETCHING static void ask_for_loads(const Code* b, const int64_t* offset, int64_t at) {
    constexpr int64_t kDirectK = V::template kDirectK<Code>;
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Code));
    constexpr int64_t kAhead = kBlocks * kBlockK - (kBlocks > 1 ? kDirectK : 0);
    constexpr int64_t kColumns = V::template kBetweenK<Code> * V::kLanes / kDirectK;
    for (int c = 0; c < kGroups * kBlocks; ++c)
        for (int64_t j = 0; j < kColumns; ++j) {
            const int64_t column = at * V::kLanes / kDirectK + j;
            const Code* ahead =
                b + c / kGroups * kBlockK + kAhead + offset[c % kGroups * V::kLanes + column];
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
    typename V::Sum acc[kChains];
#pragma GCC unroll 4
    for (auto& x : acc) x = V::zero();
    const int64_t num_k = kBlocks > 1 ? kBlockK : loaded_k<V>(t.k - k);
    for (int64_t part = 0; part < num_k; part += V::template kDirectK<Code>) {
        V::template widen_direct<Code, kGroups, kBlocks>(
            state, b + part, offset,
            [&](int64_t at) DSA_INLINE_LAMBDA {
                next.lines(kChains * V::kLanes * kBytes * V::template kBetweenK<Code> / 64);
                if constexpr (V::kAsksForLoads)
                    if (t.follows_columns)
                        ask_for_loads<V, Code, kGroups, kBlocks>(b + part, offset, at);
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

// kGroups x kLanes columns from `col`, kBlocks blocks of k at a time.
template <class V, class Code, int kGroups, int kBlocks, class Next>
static inline void one_row_columns(const NtTile& t, int64_t col, typename V::Sum* total) {
    const typename V::State state = V::load_state();
    Next next(static_cast<const Code*>(t.b) + col * t.ldb, t, kGroups * V::kLanes);
    int64_t offset[kGroups * V::kLanes];
    for (int g = 0; g < kGroups; ++g)
        column_offsets<V>(t, col + g * V::kLanes, offset + g * V::kLanes);
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) total[g] = V::zero();
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
                for (int64_t i = 0; i < kRun; i += kCopied * kBlockK)
                    add_blocks<V, Code, 1, kCopied>(t, state, next, col, values + i, places,
                                                    first + i, total);
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
}

template <class V, class Code, class Next>
static inline void one_row_by(const NtTile& t) {
    constexpr int64_t kPair = 2 * V::kLanes;
    constexpr int kBlocks = V::template kBlocksOfOneRow<Code>;
    typename V::Sum sum[4];
    int64_t col = 0;
    if (t.k < V::template kLongColumn<Code>)
        for (; col + 2 * kPair <= t.n; col += 2 * kPair) {
            one_row_columns<V, Code, 4, 1, Next>(t, col, sum);
            store_sums<V>(t, 0, col, sum[0], sum[1]);
            store_sums<V>(t, 0, col + kPair, sum[2], sum[3]);
        }
    for (; col < t.n; col += kPair) {
        one_row_columns<V, Code, 1, kBlocks, Next>(t, col, sum);
        sum[1] = V::zero();
        if (col + V::kLanes < t.n)
            one_row_columns<V, Code, 1, kBlocks, Next>(t, col + V::kLanes, sum + 1);
        store_sums<V>(t, 0, col, sum[0], sum[1]);
    }
}

template <class V, class Code>
static inline void nt_one_row(const NtTile& t) {
    constexpr int64_t kSize = sizeof(Code);
    constexpr int64_t kRun = V::template kRunColumn<Code>;
    if (t.follows_columns && t.k * kSize < kLongColumn) {
        one_row_by<V, Code, NextShortColumns<kSize>>(t);
    } else if (t.follows_columns || (kRun > 0 && t.k >= kRun)) {
        one_row_by<V, Code, NextRun<kSize>>(t);
    } else {
        one_row_by<V, Code, NextColumns<kSize>>(t);
    }
}

}  // namespace dsa::gemm::cpu
