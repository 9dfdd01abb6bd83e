#pragma once
// How the nt kernels read B: the same part of many columns (rows of the stored [n, k]) side by
// side. V as in nt_tile.h. Everything is static inline: internal to the ISA file.

#include <cstdint>
#include <cstring>

#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

static inline int64_t min_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// Where the columns of lanes start; columns beyond n repeat the last one, and are not stored.
template <class V>
static inline void column_offsets(const NtTile& t, int64_t col, int64_t* offset) {
    for (int64_t j = 0; j < V::kLanes; ++j) offset[j] = (col + j < t.n ? col + j : t.n - 1) * t.ldb;
}

// Values of k that are multiplied for `valid` of a block (or of `most`): whole loads of columns.
template <class V>
static inline int64_t loaded_k(int64_t valid, int64_t most = kBlockK) {
    return min_of((valid + V::kLoadK - 1) / V::kLoadK * V::kLoadK, most);
}

// Columns a multiple of 4 KB apart share few sets of the caches: lines that are asked for a whole
// pass over a tile's columns ahead push each other out. size: bytes a value.
static inline bool columns_conflict(const NtTile& t, int64_t size) {
    return t.ldb * size % 4096 == 0;
}

// Columns that conflict and whose lines several loads take, because loads are parts of a line
// (in_parts) or because columns start inside one: it is out of L1 when the next load's turn comes.
// So runs of such columns are copied side by side, column by column: each line then comes once.
// Faster on Zen 4, whose L1 has 8 ways; not measured elsewhere.
static inline bool copies_pay(const NtTile& t, int64_t size, bool in_parts) {
    return t.prefetch_into_l2 && columns_conflict(t, size) &&
           (in_parts || reinterpret_cast<uintptr_t>(t.b) % 64 != 0);
}

// kRun values from k on of each of kColumns columns, which start at offset[j]: values
// [kColumns][kRun].
template <class Code, int64_t kColumns, int64_t kRun>
__attribute__((always_inline)) static inline void copy_columns(const NtTile& t,
                                                               const int64_t* offset, int64_t k,
                                                               Code* values) {
    constexpr int64_t kStep = 64 / static_cast<int64_t>(sizeof(Code));
    const auto* b = static_cast<const Code*>(t.b) + k;
    for (int64_t j = 0; j < kColumns; ++j)
        for (int64_t i = 0; i < kRun; i += kStep)
            std::memcpy(values + j * kRun + i, b + offset[j] + i, 64);
}

// What is left of k from k on, less than a block, of columns as above, zeros behind.
template <class Code, int64_t kColumns, int64_t kRun>
static inline void copy_rest(const NtTile& t, const int64_t* offset, int64_t k, Code* values) {
    const auto* b = static_cast<const Code*>(t.b) + k;
    for (int64_t j = 0; j < kColumns; ++j)
        for (int64_t i = 0; i < kBlockK; ++i)
            values[j * kRun + i] = i < t.k - k ? b[offset[j] + i] : Code{0};
}

// Where copies pay: use(values, places, k) for each whole run: the columns from k on are at values
// + places[j]. Returns where k goes on without copies.
template <class Code, int64_t kColumns, int64_t kRun, class Use>
__attribute__((always_inline)) static inline int64_t with_copies(const NtTile& t,
                                                                 const int64_t* offset,
                                                                 bool in_parts, const Use& use) {
    if (!copies_pay(t, sizeof(Code), in_parts)) return 0;
    alignas(64) Code values[kColumns * kRun];
    int64_t places[kColumns];
    for (int64_t j = 0; j < kColumns; ++j) places[j] = j * kRun;
    int64_t k = 0;
    for (; k + kRun <= t.k; k += kRun) {
        copy_columns<Code, kColumns, kRun>(t, offset, k, values);
        use(static_cast<const Code*>(values), static_cast<const int64_t*>(places), k);
    }
    return k;
}
// Values of a run of each of kGroups x kLanes columns: 16 KB in all at most.
template <class Code, int kGroups = 1>
inline constexpr int64_t kCopiedRun = 1024 / kGroups / static_cast<int64_t>(sizeof(Code));

// For functions that do nothing but prefetch: a call of one counts for g++ as one without effect.
#define DSA_PREFETCHING __attribute__((always_inline)) inline

// `count` lines from p, into L2 or L1. Two instructions at least take turns: the prefetcher of Zen
// 4 goes by the distance between the addresses of one instruction, and further ahead where that is
// more than a line (measured).
DSA_PREFETCHING static void prefetch_lines(const uint8_t* p, int64_t count, bool into_l2) {
    if (into_l2) {
#pragma GCC unroll 2
        for (int64_t i = 0; i < count; ++i) __builtin_prefetch(p + 64 * i, 0, 2);
    } else {
#pragma GCC unroll 2
        for (int64_t i = 0; i < count; ++i) __builtin_prefetch(p + 64 * i);
    }
}

// Bytes: where the hardware's prefetches end, and the first of them that set it off again.
inline constexpr int64_t kPage = 4096;
inline constexpr int64_t kPageHead = 512;

static inline int64_t place_in_page(const void* p) {
    return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % kPage);
}

// For kernels that read `bytes` at p, and on from there, for runs that the hardware prefetches by
// itself: the first lines of the next page shortly before its turn (measured on Granite Rapids).
DSA_PREFETCHING static void prefetch_page_head(const void* p, int64_t bytes) {
    constexpr int64_t kLines = 4;
    const uint8_t* ahead = static_cast<const uint8_t*>(p) + kPageHead;
    if (place_in_page(ahead) < bytes) prefetch_lines(ahead, kLines, true);
}

// Prefetches of the block of k at p for kernels that read one column of bytes after another, a
// single run of memory. Where the hardware follows runs by itself (NtTile::follows_columns), line
// buffers that wait for memory are what there is least of: the first lines of the next page, which
// set it off, and lines that it has brought by now, into L1 (measured on Granite Rapids). Else all
// lines a page ahead, as for reading alone.
DSA_PREFETCHING static void prefetch_run(const uint8_t* p, bool follows) {
    constexpr int64_t kLines = kBlockK / 64;
    if (!follows) return prefetch_lines(p + kPage, kLines, false);
    if (place_in_page(p) < kPageHead) prefetch_lines(p + kPage, kLines, true);
    prefetch_lines(p + kPage / 2, kLines, false);
}

// What to prefetch while `columns` columns from `first` on are in use: as far ahead as they are
// long, and a little more for the sake of short ones. Behind the last columns of a tile are those
// at b_next, if it is known.
template <int64_t kSize>
static inline const uint8_t* behind_columns(const void* first, const NtTile& t, int64_t columns) {
    constexpr int64_t kMore = 8192;  // bytes
    const uint8_t* next = static_cast<const uint8_t*>(first) + columns * t.ldb * kSize + kMore;
    const uint8_t* end = static_cast<const uint8_t*>(t.b) + t.n * t.ldb * kSize;
    if (t.b_next == nullptr || next < end) return next;
    return static_cast<const uint8_t*>(t.b_next) + (next - end);
}

// Prefetches for kernels that read all of k of some columns before the next ones: what follows in
// memory, in order of addresses. Those columns lie side by side in memory, so the lines of the next
// ones have arrived when they are needed, and memory sees one ascending run. Most have left L1 for
// L2 by then, yet asking for L1 is faster on Zen 5, and half as fast on Zen 4 (measured). kSize
// bytes a value.
template <int64_t kSize>
class NextColumns {
  public:
    NextColumns(const void* first, const NtTile& t, int64_t columns)
        : next_(behind_columns<kSize>(first, t, columns)), into_l2_(t.prefetch_into_l2) {}

    // The next `count` lines. A few at a time among other work: a long run of prefetches stops the
    // core.
    DSA_PREFETCHING void lines(int64_t count) {
        asm("" : "+r"(next_));  // one register, not an address a line
        prefetch_lines(next_, count, into_l2_);
        next_ += 64 * count;
    }

  private:
    const uint8_t* next_;
    bool into_l2_;
};

// Bytes from which on columns, 16 side by side, are runs that the hardware prefetches better by
// itself (measured on Granite Rapids).
inline constexpr int64_t kLongColumn = 4096;

// As NextColumns, into L2, for short columns; the first lines of a page also a page before their
// turn: the hardware then goes on from there by itself, and few line buffers wait for memory. Of
// long columns only the first lines of each page, where the hardware's prefetches end. (Measured on
// Granite Rapids.)
template <int64_t kSize>
class NextShortColumns {
  public:
    NextShortColumns(const void* first, const NtTile& t, int64_t columns)
        : next_(behind_columns<kSize>(first, t, columns)), are_short_(t.k * kSize < kLongColumn) {}

    DSA_PREFETCHING void lines(int64_t count) {
        if (!are_short_) return;
        prefetch_lines(next_, count, true);
        if (place_in_page(next_) < kPageHead) prefetch_lines(next_ + kPage, count, true);
        next_ += 64 * count;
    }
    // For each block of k of a column: where it is read.
    DSA_PREFETCHING void block(const void* p) const {
        if (!are_short_) prefetch_page_head(p, kBlockK * kSize);
    }

  private:
    const uint8_t* next_;
    bool are_short_;
};

// NextShortColumns where the CPU's hardware follows columns by itself (NtTile), else NextColumns.
template <int64_t kSize>
class NextOfCpu {
  public:
    NextOfCpu(const void* first, const NtTile& t, int64_t columns)
        : follows_(t.follows_columns), short_(first, t, columns), all_(first, t, columns) {}

    DSA_PREFETCHING void lines(int64_t count) {
        if (follows_) {
            short_.lines(count);
        } else {
            all_.lines(count);
        }
    }
    // As NextPanel's, which is called twice for each column of two lines.
    DSA_PREFETCHING void column() { lines(kSize); }
    DSA_PREFETCHING void block(const void* p) const {
        if (follows_) short_.block(p);
    }
    // Of `columns` columns at b + offset[].
    template <class Code>
    DSA_PREFETCHING void blocks(const Code* b, const int64_t* offset, int64_t columns) const {
        if (!follows_) return;
        for (int64_t j = 0; j < columns; ++j) short_.block(b + offset[j]);
    }

  private:
    bool follows_;
    NextShortColumns<kSize> short_;
    NextColumns<kSize> all_;
};

// For the block of k from `k` of `columns` columns from `col`: the blocks before it have asked for
// their share. What NextOfCpu::block() asks for is asked for at once.
template <int64_t kSize>
static inline NextOfCpu<kSize> next_columns(const NtTile& t, int64_t columns, int64_t col,
                                            int64_t k) {
    const auto* b = static_cast<const uint8_t*>(t.b);
    const NextOfCpu<kSize> next(b + (col * t.ldb + k * columns) * kSize, t, columns);
    for (int64_t j = 0; j < columns; ++j) next.block(b + ((col + j) * t.ldb + k) * kSize);
    return next;
}

// As NextColumns, for the kernels whose eight calls of lines() are for one run of blocks of eight
// columns: each asks for the next run of one of these columns, then of the columns behind them.
// Faster than NextColumns where columns are long and the hardware prefetches along them (measured
// on Zen 3).
template <int64_t kSize>
class NextRun {
  public:
    NextRun(const void* first, const NtTile& t, int64_t columns)
        : next_(static_cast<const uint8_t*>(first) + 4 * kBlockK * kSize),
          end_(static_cast<const uint8_t*>(first) + t.k * kSize),
          behind_((columns * t.ldb - t.k) * kSize),
          stride_(t.ldb * kSize),
          columns_(columns),
          into_l2_(t.prefetch_into_l2) {}

    DSA_PREFETCHING void lines(int64_t count) {
        prefetch_lines(next_ + column_ * stride_, count, into_l2_);
        if (++column_ < columns_) return;
        column_ = 0;
        next_ += 64 * count;
        if (next_ >= end_) next_ += behind_;
    }

  private:
    const uint8_t* next_;
    const uint8_t* end_;  // of the first column
    int64_t behind_;      // from there to the columns behind
    int64_t stride_;
    int64_t columns_;
    int64_t column_ = 0;
    bool into_l2_;
};

// Rows from which on panels are prefetched between the products (PanelBehind) and not while the
// panel before is made (NextPanel). Measured on Zen 4.
inline constexpr int64_t kManyRows = 64;

// The part of column `col` of B that starts at k; behind the last k, of the tile behind this one.
static inline const uint8_t* column_at(const NtTile& t, int64_t k, int64_t col, int64_t size) {
    return static_cast<const uint8_t*>(t.b) +
           (k < t.k ? col * t.ldb + k : (t.n + col) * t.ldb) * size;
}

// Prefetches for kernels that read 128 of k of some columns, a panel, before the next columns: the
// next block of k, a whole pass over the tile's columns ahead. None with many rows. kSize bytes a
// value.
template <int64_t kSize>
class NextPanel {
  public:
    // In use: columns from `col`, `panel_k` values of k from `k`.
    NextPanel(const NtTile& t, int64_t k, int64_t col, int64_t panel_k)
        : next_(column_at(t, k + panel_k, col, kSize)),
          stride_(t.ldb * kSize),
          bytes_(panel_k * kSize),
          is_used_(t.m < kManyRows) {}

    // The next column's lines, into L2. To be called among other work, for twice as many columns as
    // the panel has: each line is then asked for again one panel later. Asked for once, few rows
    // are slower (measured).
    DSA_PREFETCHING void column() {
        if (!is_used_) return;
        for (int64_t i = 0; i < bytes_; i += 64) __builtin_prefetch(next_ + i, 0, 2);
        next_ += stride_;
    }

  private:
    const uint8_t* next_;
    int64_t stride_;
    int64_t bytes_;  // of a column
    bool is_used_;
};

// Prefetches of a panel to come while many rows meet the present one, some columns between the
// products of some rows and the next: into L1, since lines that were asked for in L2 alone may have
// left it by the time of use (measured on Zen 4). None with few rows.
template <int64_t kSize>
class PanelBehind {
  public:
    // `columns` columns that come `behind` columns after those from `col`, where the tile has as
    // many, in at most `parts` parts; `col` and `k` as above.
    PanelBehind(const NtTile& t, int64_t k, int64_t panel_k, int64_t col, int64_t behind,
                int64_t columns, int64_t parts)
        : PanelBehind(t, panel_k, t.m < kManyRows ? 0 : columns, parts) {
        const bool of_next_k = col + behind >= t.n;
        const int64_t over = of_next_k && t.n > behind ? t.n : 0;
        next_ = column_at(t, of_next_k ? k + panel_k : k, col + behind - over, kSize);
    }
    // The next panel of columns of which all of k comes before the next ones, where they are long
    // and the hardware has brought it to L2 by itself; `columns` from `col`, of which panel_k of k
    // from `k` are in use.
    static PanelBehind of_columns(const NtTile& t, int64_t k, int64_t panel_k, int64_t col,
                                  int64_t columns, int64_t parts) {
        const bool is_near = t.follows_columns && t.k * kSize >= kLongColumn;
        PanelBehind next(t, panel_k, is_near ? columns : 0, parts);
        const bool is_last = k + panel_k >= t.k;
        next.next_ = static_cast<const uint8_t*>(t.b) +
                     (is_last ? (col + columns) * t.ldb : col * t.ldb + k + panel_k) * kSize;
        return next;
    }

    // Lines of the next part; columns may start anywhere in a line.
    DSA_PREFETCHING void part() {
        const int64_t count = min_of(count_, left_);
        left_ -= count;
        for (int64_t j = 0; j < count; ++j, next_ += stride_) {
            for (int64_t i = 0; i < bytes_; i += 64) __builtin_prefetch(next_ + i);
            __builtin_prefetch(next_ + bytes_ - 1);
        }
    }

  private:
    PanelBehind(const NtTile& t, int64_t panel_k, int64_t columns, int64_t parts)
        : stride_(t.ldb * kSize),
          bytes_(panel_k * kSize),
          left_(columns),
          count_((columns + parts - 1) / parts) {}

    const uint8_t* next_;
    int64_t stride_;
    int64_t bytes_;  // of a column
    int64_t left_;   // columns that were not asked for yet
    int64_t count_;  // of a part
};

}  // namespace dsa::gemm::cpu
