#pragma once
// 2 .. V::kStagedRows rows of A from staged columns of B: a block of k of 2 * kLanes columns is
// transposed into memory, where one load or little more widens a value of all of them, and meets
// V::kRows rows at a time. All of k of some columns comes before the next ones, so memory sees
// ascending runs; but parts of k where it takes them for the rows to stay in L2. The order of
// operations is that of many rows. V as in nt_tile.h. Everything is static inline: internal to the
// ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/column_runs.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/tile_rows.h"

namespace dsa::gemm::cpu {
namespace {

// A block of k of 2 * kLanes columns.
template <class V, class Code>
class StagedColumns {
    static constexpr int64_t kColumns = 2 * V::kLanes;
    static constexpr int64_t kRawsOfK = V::template kRaws<Code>;  // for each four
    static constexpr auto kBytes = static_cast<int64_t>(sizeof(Code));

  public:
    // Those of visit i.
    StagedColumns(const NtTile& t, const Visits<kColumns>& visits, int64_t i, const Range& range)
        : t_(t),
          b_(static_cast<const Code*>(t.b)),
          next_(t, visits, i, range, offsets(visits[i])) {}
    // The block from `k`; returns the values of k that it has, zeros behind the last one.
    int64_t stage(int64_t k) {
        const int64_t num_k = loaded_k<V>(t_.k - k);
        for (int64_t g = 0; g < 2; ++g)
            for (int64_t part = 0; part < num_k; part += V::kLoadK)
                V::load_columns(b_ + k + part, offset_ + g * V::kLanes, t_.k - k - part,
                                raw_[g] + part / 4 * kRawsOfK);
        asm volatile("" ::: "memory");  // in memory, whence values are converted
        at_ = b_ + k;
        next_.block(k);
        return num_k;
    }
    // Value k + i of the columns of kGroup; i in 0 .. 3, k a multiple of 4.
    template <int kGroup>
    __attribute__((always_inline)) typename V::Vec value(int64_t k, int i) const {
        return V::template widened<Code>(raw_[kGroup] + k / 4 * kRawsOfK, i);
    }
    // Among the products, kBlockK / 4 times a block: i.
    DSA_PREFETCHING void prefetch(int64_t i) {
        next_.lines(kColumns * kBytes / 16);
        if (i < kColumns) next_.columns(at_, offset_ + i, 1);
    }

  private:
    const int64_t* offsets(const Visit<kColumns>& visit) {
        visit.offsets(t_, offset_);
        return offset_;
    }

    const NtTile& t_;
    const Code* b_;
    const Code* at_ = nullptr;  // the block that is staged
    int64_t offset_[kColumns];
    NextOfVisit<kBytes, kColumns, 256> next_;  // measured on Granite Rapids
    alignas(64) typename V::Raw raw_[2][kBlockK / 4 * kRawsOfK];
};

// c = a b * scale + (first ? 0 : c) for kRows rows: a [kRows][kBlockK], scale [kRows],
// c [kRows][2] vectors.
template <class V, int kRows, class Columns>
static inline void multiply_staged(Columns& b, bool prefetches, int64_t num_k,
                                   const typename V::Element* a, const float* scale, bool first,
                                   float* c) {
    typename V::Sum acc[2 * kRows];
#pragma GCC unroll 32
    for (auto& x : acc) x = V::zero();
    for (int64_t k = 0; k < num_k; k += 4) {
        if (prefetches) b.prefetch(k / 4);
        simd::unrolled<4>([&](auto i) DSA_INLINE_LAMBDA {
            const typename V::Vec x = b.template value<0>(k, i);
            const typename V::Vec y = b.template value<1>(k, i);
            simd::unrolled<kRows>([&](auto row) DSA_INLINE_LAMBDA {
                const typename V::Vec value = V::broadcast(a + row * kBlockK + k + i);
                acc[2 * row] = V::dot(acc[2 * row], value, x);
                acc[2 * row + 1] = V::dot(acc[2 * row + 1], value, y);
            });
        });
    }
#pragma GCC unroll 32
    for (int i = 0; i < 2 * kRows; ++i) {
        float* sum = c + i * V::kLanes;
        V::store_sum(sum,
                     V::fma(acc[i], V::set1(scale[i / 2]), first ? V::zero() : V::load_sum(sum)));
    }
}

// The block of k from `k` of the columns, of which `col` is one, times all rows, to their sums.
template <class V, class Code>
static inline void add_staged(const NtTile& t, int64_t col, int64_t k,
                              StagedColumns<V, Code>& columns, float* c) {
    const int64_t num_k = columns.stage(k);
    float scale[V::kStagedRows];
    for (int64_t i = 0; i < t.m; ++i)
        scale[i] = row_scale(t, i, k) * column_scale<V, Code>(t, col, k);
    const RowSteps<V> steps(t.m);
    int64_t row = 0;
    for (int64_t step = 0; step < steps.count; row += steps.rows(step++)) {
        const auto* a = rows_at<V>(t, k) + row * kBlockK;
        float* sums = c + row * 2 * V::kLanes;
        with_rows<V::kRows>(steps.rows(step), [&](auto rows) {
            multiply_staged<V, rows>(columns, step == 0, num_k, a, scale + row, k == 0, sums);
        });
    }
}

}  // namespace

template <class V, class Code>
static inline void staged_rows(const NtTile t) {
    constexpr int64_t kColumns = 2 * V::kLanes;
    constexpr int64_t kPart = 1 << 19;  // bytes of rows of a part
    auto* c = static_cast<float*>(t.scratch);
    const Visits<kColumns> visits(t);
    const auto block_bytes = t.m * kBlockK * static_cast<int64_t>(sizeof(typename V::Element));
    const int64_t blocks = num_blocks(t);
    const int64_t part = kPart / block_bytes;
    for (Range range{0, 0}; range.begin < blocks; range.begin = range.end) {
        range.end = min_of(range.begin + part, blocks);
        for (int64_t i = 0; i < visits.count(); ++i) {
            StagedColumns<V, Code> columns(t, visits, i, range);
            for (int64_t block = range.begin; block < range.end; ++block)
                add_staged<V, Code>(t, visits[i].column[0], block * kBlockK, columns,
                                    c + i * kColumns * t.m);
        }
    }
    store_visits<V>(t, visits, c);
}

}  // namespace dsa::gemm::cpu
