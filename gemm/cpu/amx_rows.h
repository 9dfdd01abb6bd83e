#pragma once
// How rows of A meet panels of B in AMX tiles: 16 rows and a pair of panels, 64 columns, at a time.
// Sums of a block of k leave the tiles through memory, and are scaled and added to the totals, in
// fp32 beside, among the products that come next: units of vectors and tiles work side by side.
// Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/amx_tiles.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {
namespace {

inline constexpr int64_t kPanelColumns = 32;
inline constexpr int64_t kPairColumns = 2 * kPanelColumns;
// A panel is [k / values of a lane][32 columns] lanes of 4 bytes.
inline constexpr int64_t kPanelStride = kPanelColumns * 4;

// Up to 64 columns of B of a block of k, ready for tiles. second: nullptr where there is none.
struct PanelPair {
    const void* first;
    const void* second;
    int64_t depth;  // tiles of k: 64 bytes of a row of A each
};

// What becomes of sums of one block of k: products [rows][kPairColumns] with a_scale [rows] (and
// what Scaling knows of the columns) added to totals, 32 columns of a row side by side, those of
// the second panel `panel_stride` behind. Some rows at a time. To be copied before use: g++ keeps
// in registers what has no address.
template <class Scaling>
class PendingSums {
  public:
    using Sum = typename Scaling::Sum;

    PendingSums() = default;
    // is_first: what the totals hold does not count.
    PendingSums(const Sum* products, const Scaling& scaling, const float* a_scale, int64_t rows,
                float* totals, int64_t panel_stride, bool has_second, bool is_first)
        : products_(products),
          scaling_(scaling),
          a_scale_(a_scale),
          rows_(rows),
          totals_(totals),
          panel_stride_(panel_stride),
          has_second_(has_second),
          valid_(is_first ? 0 : 0xffff) {}

    // Whether these are sums of 16 rows and two panels.
    bool is_whole() const { return rows_ == kTileHeight && has_second_; }
    bool has_second() const { return has_second_; }
    int64_t num_rows() const { return rows_; }

    // The next kRows rows, of one or two panels.
    template <int kRows, bool kSecond>
    __attribute__((always_inline)) void add_rows() {
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) {
            const __m512 a = _mm512_set1_ps(*a_scale_++);
            add<0>(a, totals_);
            add<1>(a, totals_ + 16);
            if constexpr (kSecond) {
                add<2>(a, totals_ + panel_stride_);
                add<3>(a, totals_ + panel_stride_ + 16);
            }
            products_ += kPairColumns;
            totals_ += kPanelColumns;
        }
    }

  private:
    template <int kGroup>
    __attribute__((always_inline)) void add(__m512 a, float* totals) const {
        const __m512 total = _mm512_maskz_loadu_ps(valid_, totals);
        _mm512_storeu_ps(totals, scaling_.template add<kGroup>(products_ + 16 * kGroup, a, total));
    }

    const Sum* products_ = nullptr;
    Scaling scaling_{};
    const float* a_scale_ = nullptr;
    int64_t rows_ = 0;
    float* totals_ = nullptr;
    int64_t panel_stride_ = 0;
    bool has_second_ = false;
    __mmask16 valid_ = 0;
};

template <class Scaling>
static inline void add_all(PendingSums<Scaling> sums) {
    for (int64_t i = 0; i < sums.num_rows(); ++i) {
        if (sums.has_second()) {
            sums.template add_rows<1, true>();
        } else {
            sums.template add_rows<1, false>();
        }
    }
}

// Sums of the rows at `a`, the next ones `stride` bytes behind, and panels over `depth` tiles of k:
// products [rows][kPairColumns]. between() is called with each product of tiles.
template <class Products, bool kSecond, class Between>
DSA_INLINE void multiply_panels(const uint8_t* a, int64_t stride, const PanelPair& b, int64_t depth,
                                const Between& between, typename Products::Sum* products) {
    constexpr int64_t kStride = kPairColumns * 4;
    const auto* first = static_cast<const uint8_t*>(b.first);
    const auto* second = static_cast<const uint8_t*>(b.second);
    zero_tile<0>();
    zero_tile<1>();
    if constexpr (kSecond) {
        zero_tile<2>();
        zero_tile<3>();
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < depth; ++i) {
        const int64_t at = i * kTileHeight * kPanelStride;
        load_tile<4>(a + i * kTileBytes, stride);
        load_tile<5>(first + at, kPanelStride);
        Products::template add<0, 4, 5>();
        between();
        load_tile<6>(first + at + kTileBytes, kPanelStride);
        Products::template add<1, 4, 6>();
        between();
        if constexpr (kSecond) {
            load_tile<7>(second + at, kPanelStride);
            Products::template add<2, 4, 7>();
            between();
            load_tile<5>(second + at + kTileBytes, kPanelStride);
            Products::template add<3, 4, 5>();
            between();
        }
    }
    store_tile_to<0>(products, kStride);
    store_tile_to<1>(products + 16, kStride);
    if constexpr (kSecond) {
        store_tile_to<2>(products + 32, kStride);
        store_tile_to<3>(products + 48, kStride);
    }
}

template <class Products>
static inline void multiply_pair(const uint8_t* a, int64_t stride, const PanelPair& b,
                                 typename Products::Sum* products) {
    if (b.second != nullptr) {
        multiply_panels<Products, true>(
            a, stride, b, b.depth, [] {}, products);
    } else {
        multiply_panels<Products, false>(
            a, stride, b, b.depth, [] {}, products);
    }
}

// Tiles for `rows` rows of A, at most 16: A in tile 4, panels in the others.
static inline Tiles tiles_of_rows(int64_t rows) {
    return {{rows, kTileBytes}, {rows, kTileBytes}, 1, {kTileHeight, kTileBytes}};
}

// Groups of 16 rows; the last one overlaps the one before where they are not a multiple of 16.
struct RowGroups {
    explicit RowGroups(int64_t m)
        : count((m + kTileHeight - 1) / kTileHeight),
          height(m < kTileHeight ? m : kTileHeight),
          last(m - height) {}
    int64_t start(int64_t group) const {
        return group * kTileHeight < last ? group * kTileHeight : last;
    }
    // Rows of the group that the groups before have as well.
    int64_t shared(int64_t group) const { return group * kTileHeight - start(group); }

    int64_t count, height, last;
};

// Products of rows of a tile and pairs of panels, one after another, and their totals.
template <class Products, class Scaling>
class TileSums {
  public:
    // totals: panels of 32 columns, [m][32] each, one behind another.
    TileSums(int64_t m, float* totals)
        : groups_(m), panel_stride_(m * kPanelColumns), totals_(totals) {}

    // All rows of a block of k meet the panels of columns from `col`. between() is called after
    // each of num_groups(). a_scale must last until the next call has ended.
    template <class Between>
    __attribute__((always_inline)) void add(const uint8_t* a, int64_t row_bytes, const PanelPair& b,
                                            int64_t col, const Scaling& scaling,
                                            const float* a_scale, bool is_first,
                                            const Between& between) {
        // Rows that are added with each product of tiles of a whole block.
        constexpr int kRows = kTileHeight / (4 * Products::kDepth);
        constexpr int64_t kLines = 4;  // of the next rows, with each product of tiles
        float* totals = totals_ + col / kPanelColumns * panel_stride_;
        PendingSums<Scaling> before = pending_;  // here for the registers
        for (int64_t g = 0; g < groups_.count; ++g) {
            const int64_t row = groups_.start(g);
            const int64_t shared = groups_.shared(g);
            const uint8_t* rows = a + row * row_bytes;
            const uint8_t* next_rows =
                g + 1 < groups_.count ? a + groups_.start(g + 1) * row_bytes : a;
            if (before.is_whole() && b.second != nullptr && b.depth == Products::kDepth) {
                multiply_panels<Products, true>(
                    rows, row_bytes, b, Products::kDepth,
                    [&]() DSA_INLINE_LAMBDA {
                        before.template add_rows<kRows, true>();
                        prefetch_lines(next_rows, kLines, false);
                        next_rows += kLines * 64;
                    },
                    products_);
            } else {
                add_all(before);
                multiply_pair<Products>(rows, row_bytes, b, products_);
            }
            before = PendingSums<Scaling>(products_ + shared * kPairColumns, scaling,
                                          a_scale + row + shared, groups_.height - shared,
                                          totals + (row + shared) * kPanelColumns, panel_stride_,
                                          b.second != nullptr, is_first);
            between();
        }
        pending_ = before;
    }
    void finish() {
        add_all(pending_);
        pending_ = {};
    }
    int64_t num_groups() const { return groups_.count; }

  private:
    RowGroups groups_;
    int64_t panel_stride_;
    float* totals_;
    PendingSums<Scaling> pending_;
    alignas(64) typename Products::Sum products_[kTileHeight * kPairColumns];
};

}  // namespace
}  // namespace dsa::gemm::cpu
