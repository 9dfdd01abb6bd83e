#pragma once
// Up to 16 rows of A in AMX tiles: 16 columns of B, all of k before the next ones, are what a tile
// has as rows, and rows of A are its columns. So nothing of B is transposed, and memory sees 16
// ascending runs. Tiles of a block of k are made while those of the block before are multiplied:
// what has just been stored cannot be loaded into a tile yet, and a core that waits for it asks
// memory for nothing. The order of operations is that of many rows (amx_rows.h): which operand a
// tile's rows are of makes no difference to a sum. Everything is static inline: internal to the ISA
// file.

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "base/avx512.h"
#include "base/unrolled.h"
#include "gemm/cpu/amx_tiles.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/int8_vbmi.h"
#include "gemm/cpu/int8_vnni.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes_bf16.h"
#include "gemm/cpu/one_row.h"

#if defined(__AVX512BF16__)

namespace dsa::gemm::cpu {
namespace {

inline constexpr int64_t kTileSize = kTileHeight * kTileBytes;

// Tiles of a block of k: the next one is tile_bytes behind `first`, a tile's next row row_bytes.
struct BlockTiles {
    const uint8_t* first;
    int64_t tile_bytes;
    int64_t row_bytes;
};

// 16 columns of B, from `col`, and what is made of them. Columns below are WidenedColumns,
// PlainColumns or RequantisedColumns:
//   Products                 of a tile of theirs and one of rows
//   make(block, between)     makes tiles of a block of k, one block after another; between(i), i in
//                            0 .. Products::kDepth - 1, on the way
//   tiles(block)             of one of the last two
//   unit(block, j), units(block)   what 1 means in column j, and in all of them
template <class Code, class Made>
struct ColumnsOfTiles {
    static constexpr int64_t kValues = kTileBytes / static_cast<int64_t>(sizeof(Made));  // of k
    static constexpr int64_t kDepth = kBlockK / kValues;

    ColumnsOfTiles(const NtTile& tile, int64_t first_column)
        : t(tile),
          col(first_column),
          b(static_cast<const Code*>(t.b)),
          next(b + col * t.ldb, t, kTileHeight) {
        column_offsets<LanesBf16>(t, col, offset);
    }
    int64_t valid(int64_t block) const { return t.k - block * kBlockK; }
    Made* made(int64_t block) { return tiles[block % 2]; }
    BlockTiles made_tiles(int64_t block) const {
        return {reinterpret_cast<const uint8_t*>(tiles[block % 2]), kTileSize, kTileBytes};
    }
    float scale(int64_t block) const {
        return column_scale<LanesBf16, Code>(t, col, block * kBlockK);
    }

    const NtTile& t;
    int64_t col;
    const Code* b;
    int64_t offset[kTileHeight];
    NextShortColumns<sizeof(Code)> next;
    alignas(64) Made tiles[2][kDepth * kTileHeight * kValues];
};

// e4m3 as bf16.
class WidenedColumns {
  public:
    using Products = Bf16Products;

    WidenedColumns(const NtTile& t, int64_t col) : at_(t, col) {}

    template <class Between>
    __attribute__((always_inline)) void make(int64_t block, const Between& between) {
        const LanesBf16::State state = LanesBf16::load_state();
        const uint8_t* b = at_.b + block * kBlockK;
        NextShortColumns<1> next = at_.next;  // here for the registers
        simd::unrolled<2>([&](auto half) DSA_INLINE_LAMBDA {
            const int64_t valid = at_.valid(block) - 64 * half;
            const __mmask64 mask = simd::mask_64(valid > 0 ? valid : 0);
            uint16_t* first = at_.made(block) + 2 * half * kTileSums * 2;
            uint16_t* second = first + kTileSums * 2;
            simd::unrolled<kTileHeight>([&](auto j) DSA_INLINE_LAMBDA {
                const uint8_t* column = b + at_.offset[j];
                if constexpr (half == 0) next.block(column);
                next.lines(1);
                __m512i v[2];
                simd::e4m3_to_bf16(state, _mm512_maskz_loadu_epi8(mask, column + 64 * half), &v[0],
                                   &v[1]);
                _mm512_store_si512(first + j * at_.kValues, v[0]);
                _mm512_store_si512(second + j * at_.kValues, v[1]);
                if constexpr (j % 8 == 7) between(std::integral_constant<int, 2 * half + j / 8>{});
            });
        });
        at_.next = next;
    }
    BlockTiles tiles(int64_t block) const { return at_.made_tiles(block); }
    float unit(int64_t block, int64_t /*j*/) const { return at_.scale(block); }
    __m512 units(int64_t block) const { return _mm512_set1_ps(at_.scale(block)); }

  private:
    ColumnsOfTiles<uint8_t, uint16_t> at_;
};

// bf16: whole blocks as they lie in memory.
class PlainColumns {
  public:
    using Products = Bf16Products;

    PlainColumns(const NtTile& t, int64_t col) : at_(t, col) {}

    template <class Between>
    __attribute__((always_inline)) void make(int64_t block, const Between& between) {
        if (!is_in_place(block)) copy(block);
        simd::unrolled<Products::kDepth>([&](auto i) DSA_INLINE_LAMBDA { between(i); });
    }
    BlockTiles tiles(int64_t block) const {
        if (!is_in_place(block)) return at_.made_tiles(block);
        return {reinterpret_cast<const uint8_t*>(at_.b + at_.offset[0] + block * kBlockK),
                kTileBytes, 2 * at_.t.ldb};
    }
    float unit(int64_t /*block*/, int64_t /*j*/) const { return 1.0F; }
    __m512 units(int64_t /*block*/) const { return _mm512_set1_ps(1.0F); }

  private:
    bool is_in_place(int64_t block) const {
        return at_.col + kTileHeight <= at_.t.n && at_.valid(block) >= kBlockK;
    }
    void copy(int64_t block) {
        uint16_t* to = at_.made(block);
        for (int64_t k = 0; k < kBlockK; k += at_.kValues)
            for (int64_t j = 0; j < kTileHeight; ++j, to += at_.kValues) {
                const uint16_t* column = at_.b + at_.offset[j] + block * kBlockK;
                _mm512_store_si512(to, LanesBf16::load_a(column + k, at_.valid(block) - k));
            }
    }

    ColumnsOfTiles<uint16_t, uint16_t> at_;
};

// e4m3 as int8, per column and block of k (int8_tables.h).
class RequantisedColumns {
  public:
    using Products = Int8Products;

    RequantisedColumns(const NtTile& t, int64_t col) : at_(t, col), tops_(largest(0)) {}

    template <class Between>
    __attribute__((always_inline)) void make(int64_t block, const Between& between) {
        alignas(64) int32_t top[kTileHeight];
        V::store_largest(tops_, top);
        _mm512_store_ps(unit_[block % 2],
                        _mm512_mul_ps(V::units(tops_), _mm512_set1_ps(at_.scale(block))));
        // Among what comes next: finding them is a long chain.
        if (at_.valid(block) > kBlockK) tops_ = largest(block + 1);
        const uint8_t* b = at_.b + block * kBlockK;
        NextShortColumns<1> next = at_.next;  // here for the registers
        simd::unrolled<2>([&](auto half) DSA_INLINE_LAMBDA {
            const int64_t valid = at_.valid(block) - 64 * half;
            const __mmask64 mask = simd::mask_64(valid > 0 ? valid : 0);
            int8_t* to = at_.made(block) + half * kTileSize;
            simd::unrolled<kTileHeight>([&](auto j) DSA_INLINE_LAMBDA {
                const uint8_t* column = b + at_.offset[j];
                if constexpr (half == 0) next.block(column);
                next.lines(1);
                const __m512i codes = _mm512_maskz_loadu_epi8(mask, column + 64 * half);
                _mm512_store_si512(to + j * at_.kValues, V::requantised(top[j], codes));
            });
            between(half);
        });
        at_.next = next;
    }
    BlockTiles tiles(int64_t block) const { return at_.made_tiles(block); }
    float unit(int64_t block, int64_t j) const { return unit_[block % 2][j]; }
    __m512 units(int64_t block) const { return _mm512_load_ps(unit_[block % 2]); }

  private:
    using V = Int8Vnni<ByPermute, 1, 0>;  // 0 is 0: tiles multiply signed values

    __m512i largest(int64_t block) const {
        return V::largest(at_.b + block * kBlockK, at_.offset, at_.valid(block));
    }

    ColumnsOfTiles<uint8_t, int8_t> at_;
    __m512i tops_;
    alignas(64) float unit_[2][kTileHeight];
};

// Rows of A as columns of tiles, `depth` of them for each block of k. A single row is there as it
// is packed. Rows of few columns are close together: all tiles are read for each 16 columns of B.
class RowTiles {
  public:
    // Whether the scratch of a tile holds more rows than one.
    static bool fits(const NtTile& t, int64_t depth) {
        return num_blocks(t) * depth * kTileSize + kTileBytes <= kNtScratchBytes;
    }
    RowTiles(const NtTile& t, int64_t depth)
        : first_(static_cast<const uint8_t*>(t.m == 1 ? t.a : t.scratch)), row_bytes_(4) {
        while (row_bytes_ < 4 * t.m) row_bytes_ *= 2;
        const int64_t packed_row = depth * kTileBytes;
        const int64_t packed_block = t.a_block_stride / kBlockK * packed_row;
        block_bytes_ = t.m == 1 ? packed_block : depth * kTileHeight * row_bytes_;
        if (t.m == 1) return;
        auto* tile = static_cast<uint8_t*>(t.scratch);
        for (int64_t i = 0; i < num_blocks(t) * depth; ++i) {
            const uint8_t* a = static_cast<const uint8_t*>(t.a) + i / depth * packed_block +
                               i % depth * kTileBytes;
            __m512i v[16];
            simd::transpose_16x16<4>(
                [&](int64_t j) {
                    return j < t.m ? _mm512_loadu_si512(a + j * packed_row)
                                   : _mm512_setzero_si512();
                },
                v);
#pragma GCC unroll 16
            for (int64_t j = 0; j < kTileHeight; ++j)
                _mm512_storeu_si512(tile + j * row_bytes_, v[j]);  // the next one ends it
            tile += kTileHeight * row_bytes_;
        }
    }
    BlockTiles tiles(int64_t block) const {
        return {first_ + block * block_bytes_, kTileHeight * row_bytes_, row_bytes_};
    }

  private:
    static int64_t num_blocks(const NtTile& t) {
        return (t.k + kBlockK - 1) / kBlockK;
    }

    const uint8_t* first_;
    int64_t row_bytes_;
    int64_t block_bytes_;
};

DSA_INLINE __m512 to_float(const float* sums) {
    return _mm512_load_ps(sums);
}
DSA_INLINE __m512 to_float(const int32_t* sums) {
    return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
}

// Sums of 16 columns and up to 16 rows: a vector of rows for each column, or one of columns for one
// row.
template <bool kOneRow>
class ColumnTotals {
  public:
    ColumnTotals() {
        for (__m512& x : total_) x = _mm512_setzero_ps();
    }
    // Those of a block of k: products [16][rows], rows as far apart as tiles are wide.
    template <class Columns>
    __attribute__((always_inline)) void add(const NtTile& t, int64_t block, const Columns& columns,
                                            const typename Columns::Products::Sum* products) {
        const int64_t k = block * kBlockK;
        if constexpr (kOneRow) {
            const __m512 scale =
                _mm512_mul_ps(_mm512_set1_ps(row_scale(t, 0, k)), columns.units(block));
            total_[0] = _mm512_fmadd_ps(to_float(products), scale, total_[0]);
        } else {
            alignas(64) float scale[kTileHeight] = {};
            for (int64_t i = 0; i < t.m; ++i) scale[i] = row_scale(t, i, k);
            const __m512 rows = _mm512_load_ps(scale);
#pragma GCC unroll 16
            for (int j = 0; j < kColumns; ++j)
                total_[j] = _mm512_fmadd_ps(
                    to_float(products + 16 * j),
                    _mm512_mul_ps(rows, _mm512_set1_ps(columns.unit(block, j))), total_[j]);
        }
    }
    // [rows][16] of them.
    void store(float* rows) const {
        if constexpr (kOneRow) {
            _mm512_store_ps(rows, total_[0]);
        } else {
            __m512i v[16];
            simd::transpose_16x16<4>([&](int j) { return _mm512_castps_si512(total_[j]); }, v);
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) _mm512_store_ps(rows + 16 * i, _mm512_castsi512_ps(v[i]));
        }
    }

  private:
    static constexpr int kColumns = kOneRow ? 1 : 16;
    __m512 total_[kColumns];
};

// Products of 16 columns from `col` and all rows, to sums [rows][16].
template <class Columns, bool kOneRow>
__attribute__((noinline)) static void few_rows_columns(const NtTile& t, const RowTiles& rows,
                                                       int64_t col, float* sums) {
    using Products = typename Columns::Products;
    constexpr int64_t kStride = kOneRow ? 4 : kTileBytes;
    alignas(64) typename Products::Sum products[2][kTileSums];
    Columns columns(t, col);
    ColumnTotals<kOneRow> totals;
    // Tile i of a block's products.
    const auto multiply = [&](int64_t block, auto i) DSA_INLINE_LAMBDA {
        const BlockTiles b = columns.tiles(block);
        const BlockTiles a = rows.tiles(block);
        if constexpr (i == 0) zero_tile<0>();
        load_tile<4 + i % 2>(b.first + i * b.tile_bytes, b.row_bytes);
        load_tile<6 + i % 2>(a.first + i * a.tile_bytes, a.row_bytes);
        Products::template add<0, 4 + i % 2, 6 + i % 2>();
        if constexpr (i == Products::kDepth - 1) store_tile_to<0>(products[block % 2], kStride);
    };
    const auto add = [&](int64_t block)
                         DSA_INLINE_LAMBDA { totals.add(t, block, columns, products[block % 2]); };
    const int64_t last = (t.k - 1) / kBlockK;
    columns.make(0, [](auto) {});
    for (int64_t block = 1; block <= last; ++block) {
        if (block >= 2) add(block - 2);
        columns.make(block, [&](auto i) DSA_INLINE_LAMBDA { multiply(block - 1, i); });
    }
    if (last >= 1) add(last - 1);
    simd::unrolled<Products::kDepth>([&](auto i) DSA_INLINE_LAMBDA { multiply(last, i); });
    add(last);
    totals.store(sums);
}

template <class Columns, bool kOneRow>
static inline void few_rows_in_tiles(const NtTile& t) {
    const RowTiles rows(t, Columns::Products::kDepth);
    const Tiles tiles({kTileHeight, 4 * t.m}, {kTileHeight, kTileBytes}, 2, {kTileHeight, 4 * t.m});
    alignas(64) float sums[2][kTileSums] = {};
    for (int64_t col = 0; col < t.n; col += 2 * kTileHeight) {
        few_rows_columns<Columns, kOneRow>(t, rows, col, sums[0]);
        if (col + kTileHeight < t.n)
            few_rows_columns<Columns, kOneRow>(t, rows, col + kTileHeight, sums[1]);
        for (int64_t i = 0; i < t.m; ++i)
            store_sums<LanesBf16>(t, i, col, LanesBf16::load_sum(sums[0] + i * kTileHeight),
                                  LanesBf16::load_sum(sums[1] + i * kTileHeight));
    }
}

// Rows that this form serves: false where it does not, and nothing is done.
template <class Columns>
static inline bool few_rows_in_tiles(const NtTile& t) {
    if (t.m == 1) {
        few_rows_in_tiles<Columns, true>(t);
        return true;
    }
    if (t.m > kTileHeight || !RowTiles::fits(t, Columns::Products::kDepth)) return false;
    few_rows_in_tiles<Columns, false>(t);
    return true;
}

}  // namespace
}  // namespace dsa::gemm::cpu

#endif
