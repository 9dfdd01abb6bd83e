#pragma once
// Which columns of B meet rows side by side in kernels that read all of k of some columns before
// the next ones. Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

// Blocks of k, from `begin` on.
struct Range {
    int64_t begin, end;
};

// Columns of a tile that meet rows side by side, all of one scale block.
template <int64_t kRuns>
struct Visit {
    int64_t column[kRuns];  // beyond the tile's n: repeats, whose sums are not stored
};

// All columns of a tile, visit by visit. Columns of a scale block are kRuns runs of up to
// `longest`, and a visit has one column of each run: what comes next of a run is behind it in
// memory, where the hardware's prefetches go on from visit to visit. A run starts one column later
// than the run before, and goes round: runs are often a multiple of 4 KB apart, and columns that
// start there share few sets of L1.
template <int64_t kRuns>
class Visits {
  public:
    Visits(const NtTile& t, int64_t longest) {
        for (int64_t first = 0; first < t.n;) {
            const int64_t columns = min_of(t.n - first, kBlockK - first % kBlockK);
            const int64_t length = columns < kRuns ? 1 : min_of(columns / kRuns, longest);
            for (int64_t i = 0; i < length; ++i) add(first, length, i);
            first += kRuns * length;
        }
    }
    const Visit<kRuns>& operator[](int64_t i) const { return visits_[i]; }
    int64_t count() const { return count_; }

  private:
    void add(int64_t first, int64_t length, int64_t turn) {
        Visit<kRuns>& visit = visits_[count_++];
        for (int64_t j = 0; j < kRuns; ++j, first += length) {
            visit.column[j] = first + turn;
            if (++turn == length) turn = 0;
        }
    }

    Visit<kRuns> visits_[kTileColumns / kRuns];
    int64_t count_ = 0;
};

// What comes behind a visit's blocks of k: columns' values that are used next are from b + column *
// ldb on.
template <int64_t kRuns>
struct NextVisit {
    const uint8_t* b;
    const Visit<kRuns>& visit;
};

// The first lines of runs that go on elsewhere than behind a visit's blocks of k, into L2: the
// hardware goes on from there by itself. Some runs a block, in the last blocks.
template <int64_t kRuns>
class RunHeads {
  public:
    RunHeads(const NtTile& t, const int64_t* offset, int64_t end_block,
             const NextVisit<kRuns>& next)
        : end_block_(end_block), next_(next), ldb_(t.ldb) {
        const auto* end = static_cast<const uint8_t*>(t.b) + min_of(end_block * kBlockK, t.k);
        for (int64_t j = 0; j < kRuns; ++j) go_on_ |= int64_t{end + offset[j] == at(j)} << j;
    }
    DSA_PREFETCHING void some(int64_t block) const {
        const int64_t first = (block - end_block_ + kBlocks) * kOfBlock;
        if (first < 0) return;
        for (int64_t j = first; j < first + kOfBlock; ++j)
            if ((go_on_ >> j & 1) == 0) prefetch_lines(at(j), kLines, true);
    }

  private:
    static constexpr int64_t kBlocks = 4;
    static constexpr int64_t kOfBlock = kRuns / kBlocks;
    static constexpr int64_t kLines = 4;

    const uint8_t* at(int64_t j) const { return next_.b + next_.visit.column[j] * ldb_; }

    int64_t end_block_;
    NextVisit<kRuns> next_;
    int64_t ldb_;
    int64_t go_on_ = 0;  // bit j: run j's next place is behind its present one
};

}  // namespace dsa::gemm::cpu
