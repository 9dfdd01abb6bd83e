#pragma once
// How the nt kernels read B: the same part of many columns (rows of the stored [n, k]) side by
// side. V as in nt_tile.h. Everything is static inline: internal to the ISA file.

#include <cstdint>

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

// Values of k that are multiplied for `valid` of a block: whole loads of columns.
template <class V>
static inline int64_t loaded_k(int64_t valid) {
    return min_of((valid + V::kLoadK - 1) / V::kLoadK * V::kLoadK, kBlockK);
}

// For functions that do nothing but prefetch: a call of one counts for g++ as one without effect.
#define DSA_PREFETCHING __attribute__((always_inline)) inline

// 64 values of k of the columns, `ahead` bytes further.
template <class V, class Code>
DSA_PREFETCHING static void prefetch_columns(const Code* b, const int64_t* offset, int64_t ahead) {
    for (int64_t j = 0; j < V::kLanes; ++j)
        for (int64_t line = 0; line < static_cast<int64_t>(sizeof(Code)); ++line)
            __builtin_prefetch(reinterpret_cast<const uint8_t*>(b + offset[j]) + ahead + 64 * line);
}

// Prefetches for kernels that read all of k of some columns before the next ones. A line is fetched
// so many bytes further down its column or, at its end, in the next columns. Where columns cross
// pages together the distances differ, or all of them would wait for a translation at once.
class ColumnPrefetch {
  public:
    // `columns` are read side by side; `size` bytes a value; lines are fetched `ahead` bytes before
    // their use.
    ColumnPrefetch(const NtTile& t, int64_t size, int64_t columns, int64_t ahead)
        : size_(size),
          bytes_(t.k * size),
          to_next_(columns * t.ldb * size - bytes_),
          distance_(min_of(ahead, bytes_)),
          skew_(t.ldb * size % kPage == 0 ? 64 : 0) {}

    // A line for each of `count` columns at p + offset[j], j from `first` on, that are read from k
    // on. A few at a time among other work: a long run of prefetches stops the core.
    template <class Code>
    DSA_PREFETCHING void lines(const Code* p, const int64_t* offset, int64_t k, int64_t first,
                               int64_t count) const {
        const int64_t at = k * size_ + distance_;
        if (skew_ == 0) {
            const int64_t ahead = distance_ + (at >= bytes_ ? to_next_ : 0);
            for (int64_t j = first; j < first + count; ++j) line(p + offset[j], ahead);
            return;
        }
        for (int64_t j = first; j < first + count; ++j) {
            const int64_t skew = j * skew_;
            line(p + offset[j], distance_ + skew + (at + skew >= bytes_ ? to_next_ : 0));
        }
    }

  private:
    DSA_PREFETCHING static void line(const void* p, int64_t ahead) {
        __builtin_prefetch(static_cast<const uint8_t*>(p) + ahead);
    }

    static constexpr int64_t kPage = 4096;
    int64_t size_, bytes_, to_next_, distance_, skew_;
};

}  // namespace dsa::gemm::cpu
