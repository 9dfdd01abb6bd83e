#pragma once
// How rows of A meet panels of B in AMX tiles: 16 rows and a pair of panels, 64 columns, at a time.
// Sums of a block of k leave the tiles through memory, and are scaled and added to the totals, in
// fp32 beside, among the products that come next: units of vectors and tiles work side by side.
// Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/amx_tiles.h"
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
// the second panel `panel_stride` behind. Row by row, as often as row() is called.
template <class Scaling>
class PendingSums {
  public:
    PendingSums() = default;
    // Rows from `from` on; is_first: what the totals hold does not count.
    PendingSums(const typename Scaling::Sum* products, const Scaling& scaling, const float* a_scale,
                int64_t from, int64_t rows, float* totals, int64_t panel_stride, bool has_second,
                bool is_first)
        : products_(products),
          scaling_(scaling),
          a_scale_(a_scale),
          row_(from),
          rows_(rows),
          totals_(totals),
          panel_stride_(panel_stride),
          has_second_(has_second),
          valid_(is_first ? 0 : 0xffff) {}

    __attribute__((always_inline)) void row() {
        if (row_ == rows_) return;
        const __m512 a = _mm512_set1_ps(a_scale_[row_]);
        const auto* products = products_ + row_ * kPairColumns;
        float* totals = totals_ + row_ * kPanelColumns;
        add<0>(a, products, totals);
        add<1>(a, products + 16, totals + 16);
        if (has_second_) {
            totals += panel_stride_;
            add<2>(a, products + 32, totals);
            add<3>(a, products + 48, totals + 16);
        }
        ++row_;
    }
    __attribute__((always_inline)) void finish() {
        while (row_ < rows_) row();
    }

  private:
    template <int kGroup>
    __attribute__((always_inline)) void add(__m512 a, const typename Scaling::Sum* products,
                                            float* totals) {
        const __m512 total = _mm512_maskz_loadu_ps(valid_, totals);
        _mm512_storeu_ps(totals, scaling_.template add<kGroup>(products, a, total));
    }

    const typename Scaling::Sum* products_ = nullptr;
    Scaling scaling_{};
    const float* a_scale_ = nullptr;
    int64_t row_ = 0;
    int64_t rows_ = 0;
    float* totals_ = nullptr;
    int64_t panel_stride_ = 0;
    bool has_second_ = false;
    __mmask16 valid_ = 0;
};

// Sums of the rows at `a`, the next ones `stride` bytes behind, and a pair of panels over a block
// of k: products [rows][kPairColumns]. Those of before are added meanwhile.
template <class Products, class Before>
DSA_INLINE void multiply_pair(const uint8_t* a, int64_t stride, const PanelPair& b, Before& before,
                              typename Products::Sum* products) {
    constexpr int64_t kStride = kPairColumns * 4;
    const auto* first = static_cast<const uint8_t*>(b.first);
    const auto* second = static_cast<const uint8_t*>(b.second);
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    for (int64_t i = 0; i < b.depth; ++i, a += kTileBytes, first += kTileHeight * kPanelStride) {
        load_tile<4>(a, stride);
        load_tile<5>(first, kPanelStride);
        Products::template add<0, 4, 5>();
        before.row();
        load_tile<6>(first + kTileBytes, kPanelStride);
        Products::template add<1, 4, 6>();
        before.row();
        if (second == nullptr) continue;
        load_tile<7>(second, kPanelStride);
        Products::template add<2, 4, 7>();
        before.row();
        load_tile<5>(second + kTileBytes, kPanelStride);
        Products::template add<3, 4, 5>();
        before.row();
        second += kTileHeight * kPanelStride;
    }
    before.finish();
    store_tile_to<0>(products, kStride);
    store_tile_to<1>(products + 16, kStride);
    if (second == nullptr) return;
    store_tile_to<2>(products + 32, kStride);
    store_tile_to<3>(products + 48, kStride);
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
    // each of num_groups(). What scaling and a_scale point to must last until the call after the
    // next.
    template <class Between>
    __attribute__((always_inline)) void add(const uint8_t* a, int64_t row_bytes, const PanelPair& b,
                                            int64_t col, const Scaling& scaling,
                                            const float* a_scale, bool is_first,
                                            const Between& between) {
        for (int64_t g = 0; g < groups_.count; ++g) {
            typename Products::Sum* products = products_[next_];
            const int64_t row = groups_.start(g);
            multiply_pair<Products>(a + row * row_bytes, row_bytes, b, pending_, products);
            pending_ = PendingSums<Scaling>(
                products, scaling, a_scale + row, groups_.shared(g), groups_.height,
                totals_ + col / kPanelColumns * panel_stride_ + row * kPanelColumns, panel_stride_,
                b.second != nullptr, is_first);
            next_ ^= 1;
            between();
        }
    }
    void finish() { pending_.finish(); }
    int64_t num_groups() const { return groups_.count; }

  private:
    RowGroups groups_;
    int64_t panel_stride_;
    float* totals_;
    int next_ = 0;
    PendingSums<Scaling> pending_;
    alignas(64) typename Products::Sum products_[2][kTileHeight * kPairColumns];
};

}  // namespace
}  // namespace dsa::gemm::cpu
