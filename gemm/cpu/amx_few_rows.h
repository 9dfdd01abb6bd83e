#pragma once
// Up to 64 rows of A in AMX tiles: 16 columns of B, all of k before the next ones, are what a tile
// has as rows (amx_columns.h), and groups of 16 rows of A are the columns of others. So nothing of
// B is transposed, and memory sees 16 ascending runs, of several columns each. Tiles of a block of
// k are made while those of the block before are multiplied and the sums of the one before that are
// added: what has just been stored cannot be loaded into a tile yet, and a core that waits for it
// asks memory for nothing. Rows come from L2, and past L1, which keeps what is made and added. The
// order of operations is that of many rows (amx_rows.h): which operand a tile's rows are of makes
// no difference to a sum. Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "base/avx512.h"
#include "base/unrolled.h"
#include "gemm/cpu/amx_columns.h"
#include "gemm/cpu/amx_tiles.h"
#include "gemm/cpu/column_runs.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes_bf16.h"

#if defined(__AVX512BF16__)

namespace dsa::gemm::cpu {
namespace {

// Rows of A as columns of tiles, in the scratch of a tile: for each block of k `depth` tiles of
// each group of 16 rows, one group after another; then the rows' scales; and room for totals of all
// columns. A single row stays as it is packed. Few rows are close together: all tiles are read for
// each 16 columns of B.
class RowTiles {
  public:
    // Whether the scratch holds the tiles of several rows.
    static bool fit(const NtTile& t, int64_t depth) {
        const int64_t group = num_blocks(t) * (depth * kTileSize + kScaleBytes);
        return num_groups(t) * (group + kTileColumns * kTileHeight * 4) + kTileBytes <=
               nt_scratch_bytes(t.k);
    }
    RowTiles(const NtTile& t, int64_t depth) : depth_(depth), groups_(num_groups(t)) {
        while (row_bytes_ < min_of(4 * t.m, kTileBytes)) row_bytes_ *= 2;
        const int64_t packed_block = t.a_block_stride / kBlockK * depth * kTileBytes;
        block_bytes_ = t.m == 1 ? packed_block : depth * groups_ * tile_bytes();
        first_ = static_cast<const uint8_t*>(t.m == 1 ? t.a : t.scratch);
        if (t.m == 1) {
            *t.arranged = {};
            totals_ = static_cast<float*>(t.scratch);
            return;
        }
        column_totals_ = groups_ * kTileHeight;
        auto* tile = static_cast<uint8_t*>(t.scratch);
        auto* scale = reinterpret_cast<float*>(tile + num_blocks(t) * block_bytes_ + kTileBytes);
        scales_ = scale;
        totals_ = scale + num_blocks(t) * groups_ * kTileHeight;
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
    int64_t block_bytes() const { return block_bytes_; }
    // Room for sums of a column and all rows, [groups][16] (of a single row: [1]), those of the
    // next column behind.
    float* totals(int64_t col) const { return totals_ + col * column_totals_; }
    // [groups][16]
    const float* scales(int64_t block) const { return scales_ + block * groups_ * kTileHeight; }

    static int64_t num_groups(const NtTile& t) { return (t.m + kTileHeight - 1) / kTileHeight; }

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
    float* totals_ = nullptr;
    int64_t column_totals_ = 1;  // of a column
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
    static constexpr int64_t kSize = kOneRow ? kTileHeight : kGroups * kTileSums;

    // What products of a block of k are multiplied with: of each group of rows (or of the row), and
    // of columns where theirs differ and there are several rows.
    struct Scales {
        __m512 of_group[kGroups];
        const float* of_column;
    };
    static Scales scales(const NtTile& t, const RowTiles& rows, const Columns& columns,
                         int64_t block) {
        Scales scales;
        simd::unrolled<kGroups>([&](auto g) DSA_INLINE_LAMBDA {
            const __m512 row = kOneRow ? _mm512_set1_ps(row_scale(t, 0, block * kBlockK))
                                       : _mm512_load_ps(rows.scales(block) + g * kTileHeight);
            scales.of_group[g] =
                kOneRow || Columns::kOneUnit ? _mm512_mul_ps(row, columns.units(block)) : row;
        });
        scales.of_column = columns.each_unit(block);
        return scales;
    }
    // Part kStep of kSteps of those of a block of k: products [groups][16 columns][16 rows], of one
    // row [16 columns].
    template <int kStep, int kSteps>
    __attribute__((always_inline)) void add(const Scales& scales, const Product* products) {
        if constexpr (kOneRow) {
            if constexpr (kStep == 0) add(products, scales.of_group[0], total_);
        } else {
            constexpr int kCount = kTileHeight * kGroups / kSteps;
            simd::unrolled<kCount>([&](auto i) DSA_INLINE_LAMBDA {
                constexpr int kColumn = (kStep * kCount + i) / kGroups;
                constexpr int kGroup = (kStep * kCount + i) % kGroups;
                constexpr int kAt = kGroup * kTileSums + kColumn * kTileHeight;
                __m512 scale = scales.of_group[kGroup];
                if constexpr (!Columns::kOneUnit)
                    scale = _mm512_mul_ps(scale, _mm512_set1_ps(scales.of_column[kColumn]));
                add(products + kAt, scale, total_ + kAt);
            });
        }
    }
    // To the rows' totals of the visit's columns, and from there to go on with.
    void save(const RowTiles& rows, const Visit<kTileHeight>& visit) const {
        each_part(rows, visit,
                  [&](int64_t at, float* to, size_t n) { std::memcpy(to, total_ + at, n); });
    }
    void restore(const RowTiles& rows, const Visit<kTileHeight>& visit) {
        each_part(rows, visit, [&](int64_t at, const float* from, size_t n) {
            std::memcpy(total_ + at, from, n);
        });
    }

  private:
    __attribute__((always_inline)) static void add(const Product* products, __m512 scale,
                                                   float* total) {
        _mm512_store_ps(total, _mm512_fmadd_ps(to_float(products), scale, _mm512_load_ps(total)));
    }
    // use(where in total_, where in those of the rows, bytes)
    template <class Use>
    static void each_part(const RowTiles& rows, const Visit<kTileHeight>& visit, const Use& use) {
        constexpr int64_t kAtOnce = kOneRow ? 1 : kTileHeight;
        for (int64_t j = 0; j < kTileHeight; ++j)
            for (int64_t g = 0; g < kGroups; ++g)
                use(g * kTileSums + j * kAtOnce, rows.totals(visit.column[j]) + g * kAtOnce,
                    kAtOnce * sizeof(float));
    }

    alignas(64) float total_[kSize] = {};
};

// Asks for the lines of D that sums of 32 columns from `col` go to, some rows a block of a range:
// each row's is somewhere else, and the core can wait for few stores.
class PlacesOfSums {
  public:
    PlacesOfSums(const NtTile& t, int64_t col, const Range& range) {
        const int64_t size = t.d_is_f32 ? sizeof(float) : sizeof(uint16_t);
        place_ = static_cast<const uint8_t*>(t.d) + col * size;
        stride_ = t.ldd * size;
        if (range.end == num_blocks(t) && col % (2 * kTileHeight) == 0) left_ = t.m;
        count_ = (t.m + range.end - range.begin - 1) / (range.end - range.begin);
    }
    DSA_PREFETCHING void some() {
        const int64_t count = min_of(count_, left_);
        left_ -= count;
        for (int64_t i = 0; i < count; ++i, place_ += stride_) __builtin_prefetch(place_, 1);
    }

  private:
    const uint8_t* place_;
    int64_t stride_;
    int64_t count_;
    int64_t left_ = 0;
};

// Products of visit i's columns and all rows over blocks of k, to the rows' totals.
template <class Columns, int kGroups, bool kOneRow>
__attribute__((noinline)) static void few_rows_columns(const NtTile& t, const RowTiles& rows,
                                                       const VisitsOfTiles& visits, int64_t i,
                                                       const Range& range) {
    using Products = typename Columns::Products;
    constexpr int kSteps = Products::kDepth * kGroups;
    using Product = typename Products::Sum;
    using Totals = ColumnTotals<Columns, kGroups, kOneRow>;
    constexpr int64_t kStride = kOneRow ? 4 : kTileBytes;
    alignas(64) Product products[2][kGroups * kTileSums];
    Columns columns(t, visits, i, range);
    PlacesOfSums places(t, i * kTileHeight, range);
    Totals totals;
    if (range.begin > 0) totals.restore(rows, visits[i]);
    // Part s of a block's products: its tile s / kGroups and a group.
    const auto multiply = [&](const BlockTiles& b, const BlockTiles& a, Product* out,
                              auto s) DSA_INLINE_LAMBDA {
        constexpr int kGroup = s % kGroups;
        constexpr int kB = 4 + s / kGroups % 2;
        constexpr int kA = 6 + s % 2;
        if constexpr (s < kGroups) zero_tile<kGroup>();
        if constexpr (kGroup == 0) load_tile<kB>(b.first + s / kGroups * b.tile_bytes, b.row_bytes);
        if constexpr (kGroups == 1) {
            load_tile<kA>(a.first + s * a.tile_bytes, a.row_bytes);
        } else {  // row_bytes are kTileBytes
            stream_tile<kA>(a.first + s * kTileSize, kTileBytes);
        }
        Products::template add<kGroup, kB, kA>();
        if constexpr (s >= kSteps - kGroups)
            store_tile_to<kGroup>(out + kGroup * kTileSums, kStride);
    };
    // One round more for each block's products, and one more for their sums.
    for (int64_t block = range.begin; block < range.end + 2; ++block) {
        const int64_t before = block - 1;
        const bool has_products = before >= range.begin && before < range.end;
        const bool has_sums = before > range.begin;
        const BlockTiles b = has_products ? columns.tiles(before) : BlockTiles{};
        const BlockTiles a = has_products ? rows.tiles(before) : BlockTiles{};
        Product* const out = products[before & 1];
        const Product* const in = products[block & 1];
        const auto scales =
            has_sums ? Totals::scales(t, rows, columns, before - 1) : typename Totals::Scales{};
        places.some();
        const auto between = [&](auto s) DSA_INLINE_LAMBDA {
            if (has_products) multiply(b, a, out, s);
            if (has_sums) totals.template add<s, kSteps>(scales, in);
        };
        if (block < range.end) {
            columns.template make<kSteps>(block, between);
        } else {
            simd::unrolled<kSteps>(between);
        }
    }
    totals.save(rows, visits[i]);
}

// All blocks of k, in ranges whose rows stay in L2 while all columns of the tile meet them.
class Ranges {
  public:
    Ranges(const NtTile& t, const RowTiles& rows) : blocks_(num_blocks(t)) {
        constexpr int64_t kWhole = 1 << 20;  // bytes of rows that are one range,
        constexpr int64_t kPart = 1 << 19;   // of a range of more (measured)
        const int64_t bytes = t.m > 1 ? blocks_ * rows.block_bytes() : 0;  // one row stays in L1
        if (bytes > kWhole) count_ = (bytes + kPart - 1) / kPart;
    }
    Range operator[](int64_t i) const { return {blocks_ * i / count_, blocks_ * (i + 1) / count_}; }
    int64_t count() const { return count_; }

  private:
    int64_t blocks_;
    int64_t count_ = 1;
};

// The rows' totals to D.
template <int kGroups, bool kOneRow>
static inline void store_totals(const NtTile& t, const RowTiles& rows) {
    constexpr int64_t kColumns = 2 * kTileHeight;
    alignas(64) float sums[2][kTileSums];  // [half of the columns][rows][16]
    for (int64_t row = 0; row < t.m; row += kTileHeight)
        for (int64_t col = 0; col < t.n; col += kColumns) {
            const float* x[2] = {rows.totals(col), rows.totals(col + kTileHeight)};
            if constexpr (!kOneRow) {
                for (int64_t i = 0; i < 2; ++i) {
                    __m512i v[16];
                    simd::transpose_16x16<4>(
                        [&](int64_t j) {
                            return _mm512_load_si512(x[i] + j * kGroups * kTileHeight + row);
                        },
                        v);
#pragma GCC unroll 16
                    for (int64_t j = 0; j < kTileHeight; ++j)
                        _mm512_store_si512(sums[i] + j * kTileHeight, v[j]);
                    x[i] = sums[i];
                }
            }
            for (int64_t i = 0; i < min_of(t.m - row, kTileHeight); ++i)
                store_sums<LanesBf16>(t, row + i, col, LanesBf16::load_sum(x[0] + i * kTileHeight),
                                      LanesBf16::load_sum(x[1] + i * kTileHeight));
        }
}

template <class Columns, int kGroups, bool kOneRow>
static inline void few_rows_in_tiles(const NtTile& t) {
    const RowTiles rows(t, Columns::Products::kDepth);
    const Tiles::Shape wide{kTileHeight, min_of(4 * t.m, kTileBytes)};
    const Tiles tiles(wide, {kTileHeight, kTileBytes}, 2, wide);
    const VisitsOfTiles visits(t, Columns::kLongest);
    const Ranges ranges(t, rows);
    for (int64_t r = 0; r < ranges.count(); ++r)
        for (int64_t i = 0; i < visits.count(); ++i)
            few_rows_columns<Columns, kGroups, kOneRow>(t, rows, visits, i, ranges[r]);
    store_totals<kGroups, kOneRow>(t, rows);
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
