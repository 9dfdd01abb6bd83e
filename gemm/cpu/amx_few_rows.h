#pragma once
// Up to 16 rows of A in AMX tiles: 16 columns of B, all of k before the next ones, are what a tile
// has as rows, as they lie in memory (bf16) or widened beside it (e4m3), and rows of A are its
// columns. So nothing of B is transposed, and memory sees 16 ascending runs. The order of
// operations is that of many rows (amx_rows.h): which operand a tile's rows are of makes no
// difference to a sum. V as in nt_tile.h. Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "base/unrolled.h"
#include "gemm/cpu/amx_tiles.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/one_row.h"

#if defined(__AVX512BF16__)

namespace dsa::gemm::cpu {
namespace {

inline constexpr int64_t kTileValues = 32;  // of k in a tile: bf16
inline constexpr int64_t kTileSize = kTileHeight * kTileBytes;

// Tiles of a block of k of 16 columns.
inline constexpr int64_t kBlockTiles = kBlockK / kTileValues;

// A block of k of the columns at b + offset[j], `valid` values of it and zeros behind: bf16 tiles.
template <class V>
static inline void make_tiles(const typename V::State& state, const uint8_t* b,
                              const int64_t* offset, int64_t valid, NextShortColumns<1>& next,
                              uint16_t* tiles) {
    constexpr int64_t kTile = kTileSize / 2;
    for (int64_t half = 0; half < 2; ++half) {
        const __mmask64 mask = simd::mask_64(valid > 64 * half ? valid - 64 * half : 0);
#pragma GCC unroll 4
        for (int64_t j = 0; j < kTileHeight; ++j) {
            next.lines(1);
            __m512i v[2];
            simd::e4m3_to_bf16(state, _mm512_maskz_loadu_epi8(mask, b + offset[j] + 64 * half),
                               &v[0], &v[1]);
            _mm512_store_si512(tiles + 2 * half * kTile + j * kTileValues, v[0]);
            _mm512_store_si512(tiles + (2 * half + 1) * kTile + j * kTileValues, v[1]);
        }
    }
}
template <class V>
static inline void make_tiles(const typename V::State&, const uint16_t* b, const int64_t* offset,
                              int64_t valid, NextShortColumns<2>& /*next*/, uint16_t* tiles) {
    for (int64_t i = 0; i < kBlockTiles; ++i)
        for (int64_t j = 0; j < kTileHeight; ++j)
            _mm512_store_si512(tiles + (i * kTileHeight + j) * kTileValues,
                               V::load_a(b + offset[j] + i * kTileValues, valid - i * kTileValues));
}

// Rows of A as columns of tiles: tile i of them, 32 values of k, is at at(i), its next row stride()
// bytes behind. A single row is there as it is packed.
class RowTiles {
  public:
    // Whether the scratch of a tile holds more rows than one.
    static bool fits(const NtTile& t) {
        return num_tiles(t) * kTileSize <= kTileRows * kTileColumns * 4;
    }
    explicit RowTiles(const NtTile& t)
        : values_(static_cast<const uint8_t*>(t.m == 1 ? t.a : t.scratch)),
          block_bytes_(t.m == 1 ? 2 * t.a_block_stride : kBlockTiles * kTileSize),
          tile_bytes_(t.m == 1 ? kTileBytes : kTileSize),
          stride_(t.m == 1 ? 4 : kTileBytes) {
        if (t.m == 1) return;
        auto* tiles = static_cast<uint8_t*>(t.scratch);
        for (int64_t i = 0; i < num_tiles(t); ++i, tiles += kTileSize) {
            const auto* a = static_cast<const uint16_t*>(t.a) + i / kBlockTiles * t.a_block_stride +
                            i % kBlockTiles * kTileValues;
            __m512i v[16];
            simd::transpose_16x16<4>(
                [&](int64_t row) {
                    return row < t.m ? _mm512_loadu_si512(a + row * kBlockK)
                                     : _mm512_setzero_si512();
                },
                v);
#pragma GCC unroll 16
            for (int64_t j = 0; j < kTileHeight; ++j)
                _mm512_store_si512(tiles + j * kTileBytes, v[j]);
        }
    }
    const uint8_t* at(int64_t block, int64_t i) const {
        return values_ + block * block_bytes_ + i * tile_bytes_;
    }
    int64_t stride() const {
        return stride_;
    }

  private:
    static int64_t num_tiles(const NtTile& t) {
        return (t.k + kBlockK - 1) / kBlockK * kBlockTiles;
    }
    const uint8_t* values_;
    int64_t block_bytes_;
    int64_t tile_bytes_;
    int64_t stride_;
};

// Sums of 16 columns and up to 16 rows: a vector of rows for each column, or one of columns for one
// row.
template <bool kOneRow>
class ColumnTotals {
  public:
    ColumnTotals() {
        for (__m512& x : total_) x = _mm512_setzero_ps();
    }
    // Those of the block of k from `k`: products [16][rows], rows as far apart as tiles are wide.
    void add(const NtTile& t, int64_t k, float b_scale, const float* products) {
        if constexpr (kOneRow) {
            total_[0] = _mm512_fmadd_ps(_mm512_load_ps(products),
                                        _mm512_set1_ps(row_scale(t, 0, k) * b_scale), total_[0]);
        } else {
            alignas(64) float scale[kTileHeight] = {};
            for (int64_t i = 0; i < t.m; ++i) scale[i] = row_scale(t, i, k) * b_scale;
            const __m512 s = _mm512_load_ps(scale);
#pragma GCC unroll 16
            for (int j = 0; j < kColumns; ++j)
                total_[j] = _mm512_fmadd_ps(_mm512_load_ps(products + 16 * j), s, total_[j]);
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
template <class V, class Code, bool kOneRow>
__attribute__((noinline)) static void few_rows_columns(const NtTile& t, const RowTiles& rows,
                                                       int64_t col, float* sums) {
    constexpr int kChains = 4;  // blocks of k side by side: a chain of products is four long
    constexpr int64_t kStride = kOneRow ? 4 : kTileBytes;
    const typename V::State state = V::load_state();
    int64_t offset[V::kLanes];
    column_offsets<V>(t, col, offset);
    const auto* b = static_cast<const Code*>(t.b);
    const bool whole_columns = col + V::kLanes <= t.n;
    alignas(64) uint16_t tiles[kChains][kBlockTiles * kTileSize / 2];
    alignas(64) float products[kChains][kTileHeight * kTileHeight];
    ColumnTotals<kOneRow> totals;
    NextShortColumns<sizeof(Code)> next(b + col * t.ldb, t, V::kLanes);
    for (int64_t k = 0; k < t.k; k += kChains * kBlockK) {
        simd::unrolled<kChains>([&](auto c) DSA_INLINE_LAMBDA {
            const int64_t from = k + c * kBlockK;
            if (from >= t.k) return;
            const void* values = tiles[c];
            int64_t stride = kTileBytes;
            int64_t tile_bytes = kTileSize;
            if (sizeof(Code) == 2 && whole_columns && from + kBlockK <= t.k) {
                values = b + offset[0] + from;
                stride = 2 * t.ldb;
                tile_bytes = kTileBytes;
            } else {
                make_tiles<V>(state, b + from, offset, t.k - from, next, tiles[c]);
            }
            zero_tile<c>();
            simd::unrolled<kBlockTiles>([&](auto i) DSA_INLINE_LAMBDA {
                load_tile<4 + i % 2>(static_cast<const uint8_t*>(values) + i * tile_bytes, stride);
                load_tile<6 + i % 2>(rows.at(from / kBlockK, i), rows.stride());
                Bf16Products::add<c, 4 + i % 2, 6 + i % 2>();
            });
            store_tile_to<c>(products[c], kStride);
        });
        for (int64_t c = 0; c < kChains && k + c * kBlockK < t.k; ++c)
            totals.add(t, k + c * kBlockK, column_scale<V, Code>(t, col, k + c * kBlockK),
                       products[c]);
    }
    totals.store(sums);
}

template <class V, class Code, bool kOneRow>
static inline void few_rows_in_tiles(const NtTile& t) {
    const RowTiles rows(t);
    const Tiles tiles({kTileHeight, 4 * t.m}, {kTileHeight, kTileBytes}, 2, {kTileHeight, 4 * t.m});
    alignas(64) float sums[2][kTileHeight * kTileHeight] = {};
    for (int64_t col = 0; col < t.n; col += 2 * V::kLanes) {
        few_rows_columns<V, Code, kOneRow>(t, rows, col, sums[0]);
        if (col + V::kLanes < t.n)
            few_rows_columns<V, Code, kOneRow>(t, rows, col + V::kLanes, sums[1]);
        for (int64_t i = 0; i < t.m; ++i)
            store_sums<V>(t, i, col, V::load_sum(sums[0] + i * kTileHeight),
                          V::load_sum(sums[1] + i * kTileHeight));
    }
}

}  // namespace
}  // namespace dsa::gemm::cpu

#endif
