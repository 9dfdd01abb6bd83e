#pragma once
// 2 .. V::kFewRows rows of A straight from B: each weight is widened once, in registers, and meets
// all rows there. All of k of some columns comes before the next ones, so memory sees ascending
// runs, and widening hides behind the products. The order of operations is that of many rows. V as
// in nt_tile.h. Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/one_row.h"

namespace dsa::gemm::cpu {

namespace {

// A block of k of some columns, where they lie or, if that pays, in a copy of a run of blocks.
template <class Code, int64_t kColumns, int64_t kRun>
class Blocks {
    static_assert(kRun % kBlockK == 0);

  public:
    Blocks(const NtTile& t, const int64_t* offset, bool in_parts)
        : t_(t), in_b_(offset), copies_(copies_pay(t, sizeof(Code), in_parts)), offsets_(offset) {
        for (int64_t j = 0; j < kColumns; ++j) in_copy_[j] = j * kRun;
    }
    // Blocks in ascending order: column j is at codes() + offsets()[j], zeros behind its end.
    void start(int64_t k) {
        if (t_.k - k < kBlockK) {
            copy_rest<Code, kColumns, kRun>(t_, in_b_, k, values_);
            codes_ = values_;
            offsets_ = in_copy_;
            return;
        }
        if (copies_ && k % kRun == 0) {
            copied_ = k + kRun <= t_.k;
            if (copied_) copy_run(k);
            offsets_ = copied_ ? in_copy_ : in_b_;
        }
        codes_ = copied_ ? values_ + k % kRun : static_cast<const Code*>(t_.b) + k;
    }
    const Code* codes() const { return codes_; }
    const int64_t* offsets() const { return offsets_; }

  private:
    __attribute__((noinline)) void copy_run(int64_t k) {
        copy_columns<Code, kColumns, kRun>(t_, in_b_, k, values_);
    }

    const NtTile& t_;
    const int64_t* const in_b_;
    const bool copies_;
    bool copied_ = false;
    const Code* codes_ = nullptr;
    const int64_t* offsets_;
    alignas(64) Code values_[kColumns * kRun];
    int64_t in_copy_[kColumns];
};

}  // namespace

// Sums of kRows rows x kGroups x kLanes columns from `col`: total [kGroups][kRows] vectors.
template <class V, class Code, int kRows, int kGroups>
static inline void few_rows_columns(const NtTile& t, int64_t col, float* total) {
    constexpr auto kBytes = static_cast<int64_t>(sizeof(Code));
    const typename V::State state = V::load_state();
    constexpr int64_t kColumns = kGroups * V::kLanes;
    NextOfCpu<kBytes> next(static_cast<const Code*>(t.b) + col * t.ldb, t, kColumns);
    int64_t offset[kColumns];
    for (int g = 0; g < kGroups; ++g)
        column_offsets<V>(t, col + g * V::kLanes, offset + g * V::kLanes);
    Blocks<Code, kColumns, kCopiedRun<Code, kGroups>> b(t, offset, V::kLinesInParts);
    const auto* a = static_cast<const typename V::Element*>(t.a);
    for (int64_t k = 0; k < t.k; k += kBlockK, a += t.a_block_stride) {
        b.start(k);
        next.blocks(static_cast<const Code*>(t.b) + k, offset, kColumns);
        typename V::Sum acc[kGroups * kRows];
#pragma GCC unroll 16
        for (auto& x : acc) x = V::zero();
        const int64_t num_k = loaded_k<V>(t.k - k);
        for (int64_t part = 0; part < num_k; part += V::template kDirectK<Code>) {
            V::template widen_direct<Code, kGroups, 1>(
                state, b.codes() + part, b.offsets(),
                [&](int64_t) DSA_INLINE_LAMBDA {
                    next.lines(kColumns * kBytes * V::template kBetweenK<Code> / 64);
                },
                [&](auto g, int64_t step, auto column) DSA_INLINE_LAMBDA {
                    const auto* values = a + part + step * V::kStepK;
                    simd::unrolled<kRows>([&](auto i) DSA_INLINE_LAMBDA {
                        const int at = g * kRows + i;  // no reference: spills
                        acc[at] = V::dot_at(acc[at], values + i * kBlockK, column);
                    });
                });
        }
        float* sum = total;
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 16
            for (int i = 0; i < kRows; ++i, sum += V::kLanes) {
                const float scale = row_scale(t, i, k) * column_scale<V, Code>(t, col, k);
                V::store_sum(sum, V::fma(acc[g * kRows + i], V::set1(scale),
                                         k == 0 ? V::zero() : V::load_sum(sum)));
            }
    }
}

// Columns from `col` as far as whole runs of kGroups groups go; the pairs that are left with fewer.
template <class V, class Code, int kRows, int kGroups>
static inline void few_rows_from(const NtTile& t, int64_t col) {
    constexpr int64_t kPair = 2 * V::kLanes;
    constexpr int kCalls = kGroups == 1 ? 2 : 1;  // columns are stored in pairs of groups
    constexpr int64_t kColumns = kGroups * kCalls * V::kLanes;
    constexpr int64_t kSums = kRows * V::kLanes;  // of a group
    auto* total = static_cast<float*>(t.scratch);
    for (; col + (kGroups > 2 ? kColumns : 1) <= t.n; col += kColumns) {
        for (int call = 0; call < kCalls; ++call)
            if (col + call * V::kLanes < t.n)
                few_rows_columns<V, Code, kRows, kGroups>(t, col + call * V::kLanes,
                                                          total + call * kSums);
        for (int64_t pair = 0; pair * kPair < kColumns; ++pair)
            for (int64_t i = 0; i < kRows; ++i) {
                const float* sums = total + 2 * pair * kSums + i * V::kLanes;
                store_sums<V>(t, i, col + pair * kPair, V::load_sum(sums),
                              V::load_sum(sums + kSums));
            }
    }
    if constexpr (kGroups > 2)
        if (col < t.n) few_rows_from<V, Code, kRows, 2>(t, col);
}

// t.m rows, at most kRows. As many chains of products side by side as the units need, as long as
// the columns in use and the next ones fit in L2.
template <class V, class Code, int kRows>
static inline void few_rows(const NtTile& t) {
    constexpr int64_t kLargest = 512 << 10;  // bytes of the columns in use
    if constexpr (kRows > 1) {
        if (t.m < kRows) return few_rows<V, Code, kRows - 1>(t);
        if constexpr (kRows <= V::kRowsOfFourGroups)
            if (4 * V::kLanes * t.ldb * static_cast<int64_t>(sizeof(Code)) <= kLargest)
                return few_rows_from<V, Code, kRows, 4>(t, 0);
        few_rows_from<V, Code, kRows, (kRows <= 8 ? 2 : 1)>(t, 0);
    }
}

}  // namespace dsa::gemm::cpu
