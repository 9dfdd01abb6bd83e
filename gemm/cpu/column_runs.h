#pragma once
// Which columns of B meet rows side by side in kernels that read all of k of some columns before
// the next ones, and what they prefetch. V as in nt_tile.h. Everything is static inline: internal
// to the ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/tile_rows.h"

namespace dsa::gemm::cpu {

// Blocks of k, from `begin` on.
struct Range {
    int64_t begin, end;
};

static inline int64_t num_blocks(const NtTile& t) {
    return (t.k + kBlockK - 1) / kBlockK;
}
static inline Range whole_range(const NtTile& t) {
    return {0, num_blocks(t)};
}
static inline bool is_whole(const Range& range, const NtTile& t) {
    return range.begin == 0 && range.end == num_blocks(t);
}

// Columns of a tile that meet rows side by side, all of one scale block.
template <int64_t kRuns>
struct Visit {
    int64_t column[kRuns];

    // Where they start; those beyond n repeat the last one, and are not stored.
    void offsets(const NtTile& t, int64_t* offset) const {
        for (int64_t j = 0; j < kRuns; ++j) offset[j] = min_of(column[j], t.n - 1) * t.ldb;
    }
};

// Whether a kernel that takes all of k of some columns gains from long runs: where the hardware
// follows them by itself, and columns are not much shorter than a page.
static inline bool goes_in_runs(const NtTile& t) {
    return t.follows_columns && t.k >= 512;
}

// All columns of a tile, visit by visit. Columns of a scale block are kRuns runs of up to
// `longest`, and a visit has one column of each run: what comes next of a run is behind it in
// memory, where the hardware's prefetches go on from visit to visit. A run starts one column later
// than the run before, and goes round: runs are often a multiple of 4 KB apart, and columns that
// start there share few sets of L1.
template <int64_t kRuns>
class Visits {
  public:
    explicit Visits(const NtTile& t) : Visits(t, goes_in_runs(t) ? kBlockK / kRuns : 1) {}
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

// Where columns, kSize bytes a value, go on behind the tile.
template <int64_t kSize>
static inline const uint8_t* next_tile(const NtTile& t) {
    if (t.b_next != nullptr) return static_cast<const uint8_t*>(t.b_next);
    return static_cast<const uint8_t*>(t.b) + t.n * t.ldb * kSize;
}

// What comes behind a visit's blocks of k: columns' values that are used next are `column` columns
// behind b.
template <int64_t kRuns>
struct NextVisit {
    const uint8_t* b;
    const Visit<kRuns>& visit;
};

// Behind visit i the next one, behind the last one of a range the next range, behind all of them
// the next tile.
template <int64_t kSize, int64_t kRuns>
static inline NextVisit<kRuns> next_visit(const NtTile& t, const Visits<kRuns>& visits, int64_t i,
                                          const Range& range) {
    const auto* b = static_cast<const uint8_t*>(t.b);
    if (i + 1 < visits.count()) return {b + range.begin * kBlockK * kSize, visits[i + 1]};
    if (range.end * kBlockK < t.k) return {b + range.end * kBlockK * kSize, visits[0]};
    return {next_tile<kSize>(t), visits[0]};
}

// The first lines of runs that go on elsewhere than behind a visit's blocks of k, into L2: the
// hardware goes on from there by itself. Some runs a block, in the last blocks.
template <int64_t kSize, int64_t kRuns>
class RunHeads {
  public:
    // Of visit i, whose columns start at offset[].
    RunHeads(const NtTile& t, const Visits<kRuns>& visits, int64_t i, const Range& range,
             const int64_t* offset)
        : end_block_(range.end),
          next_(next_visit<kSize>(t, visits, i, range)),
          stride_(t.ldb * kSize) {
        const auto* b = static_cast<const uint8_t*>(t.b);
        const int64_t end = min_of(range.end * kBlockK, t.k);
        for (int64_t j = 0; j < kRuns; ++j)
            go_on_ |= int64_t{b + (offset[j] + end) * kSize == at(j)} << j;
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

    const uint8_t* at(int64_t j) const { return next_.b + next_.visit.column[j] * stride_; }

    int64_t end_block_;
    NextVisit<kRuns> next_;
    int64_t stride_;     // bytes from a column to the next
    int64_t go_on_ = 0;  // bit j: run j's next place is behind its present one
};

// Prefetches of kernels that take visit i, columns of long runs, to all of k: the hardware follows
// them, and lines that it has brought to L2 are asked for in L1, kAhead bytes before their turn.
template <int64_t kSize, int64_t kRuns, int64_t kAhead = 512>
class NextOfRuns {
  public:
    static constexpr bool kInRuns = true;

    NextOfRuns(const NtTile& t, const Visits<kRuns>& visits, int64_t i, const Range& range,
               const int64_t* offset)
        : heads_(t, visits, i, range, offset) {}

    // For each block of k, and for each of its columns, which is at p.
    DSA_PREFETCHING void block(int64_t k) const { heads_.some(k / kBlockK); }
    DSA_PREFETCHING void column(const void* p) const {
        prefetch_lines(static_cast<const uint8_t*>(p) + kAhead, kBlockK * kSize / 64, false);
    }

  private:
    RunHeads<kSize, kRuns> heads_;
};

// The same for visits of neighbours: lines of the columns behind kColumns of them, by NextColumns
// or as it does.
template <int64_t kSize, int64_t kColumns, template <int64_t> class Lines = NextColumns>
class NextOfNeighbours {
  public:
    static constexpr bool kInRuns = false;

    template <int64_t kRuns>
    NextOfNeighbours(const NtTile& t, const Visits<kRuns>& visits, int64_t i,
                     const Range& /*range*/, const int64_t* /*offset*/)
        : lines_(static_cast<const uint8_t*>(t.b) + visits[i].column[0] * t.ldb * kSize, t,
                 kColumns) {}

    DSA_PREFETCHING void block(int64_t /*k*/) const {}
    DSA_PREFETCHING void column(const void* /*p*/) { lines(kBlockK * kSize / 64); }
    DSA_PREFETCHING void lines(int64_t count) { lines_.lines(count); }

  private:
    Lines<kSize> lines_;
};

// The one or the other, for kernels that exist once for both.
template <int64_t kSize, int64_t kRuns, int64_t kAhead>
class NextOfVisit {
  public:
    NextOfVisit(const NtTile& t, const Visits<kRuns>& visits, int64_t i, const Range& range,
                const int64_t* offset)
        : in_runs_(goes_in_runs(t)),
          in_order_(!in_runs_ && is_whole(range, t)),
          runs_(t, visits, i, range, offset),
          lines_(t, visits, i, range, offset) {}

    DSA_PREFETCHING void block(int64_t k) const {
        if (in_runs_) runs_.block(k);
    }
    // For each of count columns from the first one at b + offset[0]: what NextOfRuns asks for.
    DSA_PREFETCHING void columns(const void* b, const int64_t* offset, int64_t count) const {
        if (!in_runs_) return;
        for (int64_t j = 0; j < count; ++j)
            runs_.column(static_cast<const uint8_t*>(b) + offset[j] * kSize);
    }
    // What NextOfNeighbours asks for.
    DSA_PREFETCHING void lines(int64_t count) {
        if (in_order_) lines_.lines(count);
    }

  private:
    bool in_runs_;
    bool in_order_;  // what follows in memory is what comes next
    NextOfRuns<kSize, kRuns, kAhead> runs_;
    NextOfNeighbours<kSize, kRuns> lines_;
};

// As store_tile(), of sums [visits][rows][kRuns].
template <class V, int64_t kRuns>
static inline void store_visits(const NtTile& t, const Visits<kRuns>& visits, const float* sums) {
    int32_t place[kTileColumns] = {};  // of a column's sum with the first row
    for (int64_t i = 0; i < visits.count(); ++i)
        for (int64_t j = 0; j < kRuns; ++j)
            place[visits[i].column[j]] = static_cast<int32_t>(i * t.m * kRuns + j);
    const bool gathers = goes_in_runs(t);  // neighbours lie side by side
    const auto at = [&](int64_t row, int64_t col) DSA_INLINE_LAMBDA {
        const float* p = sums + row * kRuns;
        return gathers ? V::gather(p, place + col) : V::load_sum(p + place[col]);
    };
    for (int64_t row = 0; row < t.m; ++row)
        for (int64_t col = 0; col < t.n; col += 2 * V::kLanes) {
            prefetch_place(t, row + kStoredRows, col);
            store_sums<V>(t, row, col, at(row, col), at(row, col + V::kLanes));
        }
}

}  // namespace dsa::gemm::cpu
