#pragma once
// Up to 64 rows of A in AMX tiles: 16 columns of B, all of k before the next ones, are what a tile
// has as rows (amx_columns.h), and groups of 16 rows of A are the columns of others. So nothing of
// B is transposed, and memory sees 16 ascending runs. Tiles of a block of k are made while those of
// the block before are multiplied and the sums of the one before that are added: what has just been
// stored cannot be loaded into a tile yet, and a core that waits for it asks memory for nothing.
// The order of operations is that of many rows (amx_rows.h): which operand a tile's rows are of
// makes no difference to a sum. Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "base/unrolled.h"
#include "gemm/cpu/amx_columns.h"
#include "gemm/cpu/amx_tiles.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes_bf16.h"

#if defined(__AVX512BF16__)

namespace dsa::gemm::cpu {
namespace {

// Rows of A as columns of tiles, in the scratch of a tile: for each block of k `depth` tiles of
// each group of 16 rows, one group after another; then the rows' scales. A single row is there as
// it is packed. Few rows are close together: all tiles are read for each 16 columns of B.
class RowTiles {
  public:
    // Whether the scratch holds the tiles of several rows.
    static bool fit(const NtTile& t, int64_t depth) {
        const int64_t group = num_blocks(t) * (depth * kTileSize + kScaleBytes);
        return num_groups(t) * group + kTileBytes <= nt_scratch_bytes(t.k);
    }
    RowTiles(const NtTile& t, int64_t depth) : depth_(depth), groups_(num_groups(t)) {
        while (row_bytes_ < min_of(4 * t.m, kTileBytes)) row_bytes_ *= 2;
        const int64_t packed_block = t.a_block_stride / kBlockK * depth * kTileBytes;
        block_bytes_ = t.m == 1 ? packed_block : depth * groups_ * tile_bytes();
        first_ = static_cast<const uint8_t*>(t.m == 1 ? t.a : t.scratch);
        if (t.m == 1) return;
        auto* tile = static_cast<uint8_t*>(t.scratch);
        auto* scale = reinterpret_cast<float*>(tile + num_blocks(t) * block_bytes_ + kTileBytes);
        scales_ = scale;
        const ArrangedRows wanted{t.a, t.m, t.k};
        if (*t.arranged == wanted) return;
        *t.arranged = wanted;
        for (int64_t k = 0; k < t.k; k += kBlockK, scale += groups_ * kTileHeight) {
            arrange(t, static_cast<const uint8_t*>(t.a) + k / kBlockK * packed_block,
                    tile + k / kBlockK * block_bytes_);
            for (int64_t i = 0; i < groups_ * kTileHeight; ++i)
                scale[i] = i < t.m ? row_scale(t, i, k) : 0.0F;
        }
    }
    BlockTiles tiles(int64_t block) const {
        return {first_ + block * block_bytes_, tile_bytes(), row_bytes_};
    }
    // [groups][16]
    const float* scales(int64_t block) const { return scales_ + block * groups_ * kTileHeight; }

    static int64_t num_groups(const NtTile& t) { return (t.m + kTileHeight - 1) / kTileHeight; }
    static int64_t num_blocks(const NtTile& t) { return (t.k + kBlockK - 1) / kBlockK; }

  private:
    static constexpr int64_t kScaleBytes = kTileHeight * 4;  // of a group

    int64_t tile_bytes() const { return kTileHeight * row_bytes_; }

    // Tiles of a block of k.
    void arrange(const NtTile& t, const uint8_t* a, uint8_t* tile) const {
        const int64_t stride = depth_ * kTileBytes;
        for (int64_t i = 0; i < depth_; ++i, a += kTileBytes)
            for (int64_t row = 0; row < t.m; row += kTileHeight, tile += tile_bytes()) {
                __m512i v[16];
                simd::transpose_16x16<4>(
                    [&](int64_t j) {
                        return row + j < t.m ? _mm512_loadu_si512(a + (row + j) * stride)
                                             : _mm512_setzero_si512();
                    },
                    v);
#pragma GCC unroll 16
                for (int64_t j = 0; j < kTileHeight; ++j)
                    _mm512_storeu_si512(tile + j * row_bytes_, v[j]);  // the next one ends it
            }
    }

    int64_t depth_;
    int64_t groups_;
    int64_t row_bytes_ = 4;
    int64_t block_bytes_;
    const uint8_t* first_;
    const float* scales_ = nullptr;
};

DSA_INLINE __m512 to_float(const float* sums) {
    return _mm512_load_ps(sums);
}
DSA_INLINE __m512 to_float(const int32_t* sums) {
    return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
}

// Sums of 16 columns and a few rows: of one row a vector of columns, else a vector of rows for each
// group and column.
template <class Columns, int kGroups, bool kOneRow>
class ColumnTotals {
  public:
    using Product = typename Columns::Products::Sum;

    // Part kStep of kSteps of those of a block of k: products [groups][16 columns][16 rows], of one
    // row [16 columns].
    template <int kStep, int kSteps>
    __attribute__((always_inline)) void add(const NtTile& t, const RowTiles& rows,
                                            const Columns& columns, int64_t block,
                                            const Product* products) {
        if constexpr (kOneRow) {
            if constexpr (kStep > 0) return;
            const __m512 row = _mm512_set1_ps(row_scale(t, 0, block * kBlockK));
            add(products, _mm512_mul_ps(row, columns.units(block)), 0);
        } else {
            constexpr int kCount = kTileHeight * kGroups / kSteps;
            simd::unrolled<kCount>([&](auto i) DSA_INLINE_LAMBDA {
                constexpr int kColumn = (kStep * kCount + i) / kGroups;
                constexpr int kGroup = (kStep * kCount + i) % kGroups;
                const __m512 row = _mm512_load_ps(rows.scales(block) + kGroup * kTileHeight);
                add(products, _mm512_mul_ps(row, _mm512_set1_ps(columns.unit(block, kColumn))),
                    kGroup * kTileSums + kColumn * kTileHeight);
            });
        }
    }
    // [rows][16] of them.
    void store(float* sums) const {
        if constexpr (kOneRow) {
            _mm512_store_ps(sums, _mm512_load_ps(total_));
        } else {
            for (const float* x = total_; x < total_ + kSums; x += kTileSums, sums += kTileSums) {
                __m512i v[16];
                simd::transpose_16x16<4>(
                    [&](int j) { return _mm512_load_si512(x + j * kTileHeight); }, v);
#pragma GCC unroll 16
                for (int i = 0; i < kTileHeight; ++i)
                    _mm512_store_ps(sums + i * kTileHeight, _mm512_castsi512_ps(v[i]));
            }
        }
    }

  private:
    static constexpr int kSums = kOneRow ? kTileHeight : kGroups * kTileSums;

    __attribute__((always_inline)) void add(const Product* products, __m512 scale, int at) {
        _mm512_store_ps(total_ + at, _mm512_fmadd_ps(to_float(products + at), scale,
                                                     _mm512_load_ps(total_ + at)));
    }

    alignas(64) float total_[kSums] = {};
};

// Products of 16 columns from `col` and all rows, to sums [rows][16].
template <class Columns, int kGroups, bool kOneRow>
__attribute__((noinline)) static void few_rows_columns(const NtTile& t, const RowTiles& rows,
                                                       int64_t col, float* sums) {
    using Products = typename Columns::Products;
    constexpr int kSteps = Products::kDepth * kGroups;
    constexpr int64_t kStride = kOneRow ? 4 : kTileBytes;
    alignas(64) typename Products::Sum products[2][kGroups * kTileSums];
    Columns columns(t, col);
    ColumnTotals<Columns, kGroups, kOneRow> totals;
    // Part s of a block's products: its tile s / kGroups and a group.
    const auto multiply = [&](int64_t block, const BlockTiles& b, const BlockTiles& a,
                              auto s) DSA_INLINE_LAMBDA {
        constexpr int kGroup = s % kGroups;
        constexpr int kB = 4 + s / kGroups % 2;
        constexpr int kA = 6 + s % 2;
        if constexpr (s < kGroups) zero_tile<kGroup>();
        if constexpr (kGroup == 0) load_tile<kB>(b.first + s / kGroups * b.tile_bytes, b.row_bytes);
        load_tile<kA>(a.first + s * a.tile_bytes, a.row_bytes);
        Products::template add<kGroup, kB, kA>();
        if constexpr (s >= kSteps - kGroups)
            store_tile_to<kGroup>(products[block % 2] + kGroup * kTileSums, kStride);
    };
    const auto add = [&](int64_t block, auto s) DSA_INLINE_LAMBDA {
        totals.template add<s, kSteps>(t, rows, columns, block, products[block % 2]);
    };
    // One round more for each block's products, and one more for their sums.
    const int64_t blocks = RowTiles::num_blocks(t);
    for (int64_t block = 0; block < blocks + 2; ++block) {
        const int64_t before = block - 1;
        const bool has_products = before >= 0 && before < blocks;
        const BlockTiles b = has_products ? columns.tiles(before) : BlockTiles{};
        const BlockTiles a = has_products ? rows.tiles(before) : BlockTiles{};
        const auto between = [&](auto s) DSA_INLINE_LAMBDA {
            if (has_products) multiply(before, b, a, s);
            if (before >= 1) add(before - 1, s);
        };
        if (block < blocks) {
            columns.template make<kSteps>(block, between);
        } else {
            simd::unrolled<kSteps>(between);
        }
    }
    totals.store(sums);
}

template <class Columns, int kGroups, bool kOneRow>
static inline void few_rows_in_tiles(const NtTile& t) {
    const RowTiles rows(t, Columns::Products::kDepth);
    const Tiles::Shape wide{kTileHeight, min_of(4 * t.m, kTileBytes)};
    const Tiles tiles(wide, {kTileHeight, kTileBytes}, 2, wide);
    alignas(64) float sums[2][kGroups * kTileSums];
    for (int64_t col = 0; col < t.n; col += 2 * kTileHeight) {
        few_rows_columns<Columns, kGroups, kOneRow>(t, rows, col, sums[0]);
        if (col + kTileHeight < t.n)
            few_rows_columns<Columns, kGroups, kOneRow>(t, rows, col + kTileHeight, sums[1]);
        for (int64_t i = 0; i < t.m; ++i)
            store_sums<LanesBf16>(t, i, col, LanesBf16::load_sum(sums[0] + i * kTileHeight),
                                  LanesBf16::load_sum(sums[1] + i * kTileHeight));
    }
}

// Up to kGroups groups of rows.
template <class Columns, int kGroups>
static inline bool some_groups_in_tiles(const NtTile& t) {
    if (RowTiles::num_groups(t) == kGroups) {
        few_rows_in_tiles<Columns, kGroups, false>(t);
        return true;
    }
    if constexpr (kGroups > 1) return some_groups_in_tiles<Columns, kGroups - 1>(t);
    return false;
}

// False where this form does not serve the rows, and nothing is done.
template <class Columns>
static inline bool few_rows_in_tiles(const NtTile& t) {
    if (t.m == 1) {
        few_rows_in_tiles<Columns, 1, true>(t);
        return true;
    }
    return RowTiles::fit(t, Columns::Products::kDepth) && some_groups_in_tiles<Columns, 4>(t);
}

}  // namespace
}  // namespace dsa::gemm::cpu

#endif
