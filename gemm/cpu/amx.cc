// gemm kernels with AMX. Panels of B are made by the vector kernels' code (nt_tile.h, int8_tile.h):
// what lanes of vectors hold there, columns with neighbouring values of k, is what tiles want.

#include <immintrin.h>

#include <cstdint>

#include "gemm/cpu/amx_few_rows.h"
#include "gemm/cpu/amx_rows.h"
#include "gemm/cpu/amx_tiles.h"
#include "gemm/cpu/int8_tile.h"
#include "gemm/cpu/int8_vbmi.h"
#include "gemm/cpu/int8_vnni.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes_bf16.h"
#include "gemm/cpu/nn_tile.h"
#include "gemm/cpu/nt_tile.h"
#include "gemm/cpu/peak512.h"
#include "gemm/cpu/rows_avx512.h"

namespace dsa::gemm::cpu {
namespace {

struct V : LanesBf16 {
    static constexpr int kPanelBlocks = 1;
};
static_assert(2 * V::kLanes == kPanelColumns);

constexpr int64_t kPanelElements = kPanelColumns * kBlockK;
constexpr int64_t kRowBytes = kBlockK * static_cast<int64_t>(sizeof(V::Element));

// Rows up to which all of k of some columns comes before the next ones.
constexpr int64_t kFewRows = 64;
// Rows up to which the vector kernels serve int8.
constexpr int64_t kFewInt8Rows = 16;

// Tiles of k that hold num_k values of `size` bytes.
int64_t depth(int64_t num_k, int64_t size) {
    return (num_k * size + kTileBytes - 1) / kTileBytes;
}

struct Bf16Scaling {
    using Sum = float;
    float b_scale;

    template <int kGroup>
    __attribute__((always_inline)) __m512 add(const float* products, __m512 a_scale,
                                              __m512 total) const {
        return _mm512_fmadd_ps(_mm512_load_ps(products),
                               _mm512_mul_ps(a_scale, _mm512_set1_ps(b_scale)), total);
    }
};
using Bf16Sums = TileSums<Bf16Products, Bf16Scaling>;

// Scales of rows for two blocks of k: the one in use, and the one whose sums are not added yet.
class RowScales {
  public:
    const float* load(const NtTile& t, int64_t k) {
        next_ ^= 1;
        row_scales(t, k, scale_[next_]);
        return scale_[next_];
    }

  private:
    int next_ = 0;
    float scale_[2][kTileRows];
};

// The pair from `k` and `col`; next(col): prefetches for a panel.
template <class Code, class Next>
void widen_pair(const NtTile& t, int64_t k, int64_t col, const Next& next, V::Element* panels) {
    widen_panel<V, Code>(t, k, col, next(col), panels);
    col += kPanelColumns;
    if (col < t.n) widen_panel<V, Code>(t, k, col, next(col), panels + kPanelElements);
}

// Adds the pair from `k` and `col` to the sums of all rows.
template <class Code, class Between>
void multiply_widened(const NtTile& t, int64_t k, int64_t col, const V::Element* panels,
                      const float* a_scale, Bf16Sums& sums, const Between& between) {
    const auto* a = reinterpret_cast<const uint8_t*>(rows_at<V>(t, k));
    const bool has_second = col + kPanelColumns < t.n;
    sums.add(a, kRowBytes,
             {panels, has_second ? panels + kPanelElements : nullptr,
              depth(loaded_k<V>(t.k - k), sizeof(V::Element))},
             col, Bf16Scaling{column_scale<V, Code>(t, col, k)}, a_scale, k == 0, between);
}

// A pair of all columns before the next block of k: what many rows have there stays in L2.
template <class Code>
void blocks_first(const NtTile& t, V::Element* panels, Bf16Sums& sums) {
    RowScales scales;
    for (int64_t k = 0; k < t.k; k += kBlockK) {
        const float* a_scale = scales.load(t, k);
        for (int64_t col = 0; col < t.n; col += kPairColumns) {
            widen_pair<Code>(
                t, k, col,
                [&](int64_t panel) { return NextPanel<sizeof(Code)>(t, k, panel, kBlockK); },
                panels);
            PanelBehind<sizeof(Code)> behind(t, k, kBlockK, col, kPairColumns, kPairColumns,
                                             sums.num_groups());
            multiply_widened<Code>(t, k, col, panels, a_scale, sums, [&] { behind.part(); });
        }
    }
}

// All of k of a pair's columns before the next ones, for few rows: memory sees one ascending run.
template <class Code>
void columns_first(const NtTile& t, V::Element* panels, Bf16Sums& sums) {
    RowScales scales;
    for (int64_t col = 0; col < t.n; col += kPairColumns)
        for (int64_t k = 0; k < t.k; k += kBlockK) {
            const float* a_scale = scales.load(t, k);
            widen_pair<Code>(
                t, k, col,
                [&](int64_t panel) {
                    return next_columns<sizeof(Code)>(t, kPanelColumns, panel, k);
                },
                panels);
            multiply_widened<Code>(t, k, col, panels, a_scale, sums, [] {});
        }
}

template <class Code>
void nt_in_tiles(const NtTile& tile) {
    NtTile t = tile;
    t.prefetch_into_l2 = t.k * static_cast<int64_t>(sizeof(Code)) < kLongColumn;
    if (t.m == 1) return few_rows_in_tiles<V, Code, true>(t);
    if (t.m <= kTileHeight && RowTiles::fits(t)) return few_rows_in_tiles<V, Code, false>(t);
    auto* totals = static_cast<float*>(t.scratch);
    auto* panels = reinterpret_cast<V::Element*>(totals + kTileRows * kTileColumns);
    static_assert(2 * kPanelElements * sizeof(V::Element) <= kNtPanelBytes);
    const Tiles tiles = tiles_of_rows(min_of(t.m, kTileHeight));
    Bf16Sums sums(t.m, totals);
    if (t.m <= kFewRows) {
        columns_first<Code>(t, panels, sums);
    } else {
        blocks_first<Code>(t, panels, sums);
    }
    sums.finish();
    store_tile<V>(t, totals);
}

template <class Code>
void nn_in_tiles(const NnTile& t) {
    auto* panels = static_cast<V::Element*>(t.panel);
    auto* a = panels + kNnK * kTileNn;
    for (int64_t i = 0; i < t.m; ++i) V::pack_row(t.a + i * t.lda, kNnK, a + i * kNnK);
    for (int64_t col = 0; col < t.n; col += V::kNnColumns)
        nn_widen<V, Code>(t, col, panels + col * kNnK);
    const RowGroups groups(t.m);
    const Tiles tiles = tiles_of_rows(groups.height);
    alignas(64) float products[kTileHeight * kPairColumns];
    for (int64_t g = 0; g < groups.count; ++g)
        for (int64_t col = 0; col < t.n; col += kPairColumns) {
            const int64_t row = groups.start(g);
            const V::Element* pair = panels + col * kNnK;
            multiply_pair<Bf16Products>(reinterpret_cast<const uint8_t*>(a + row * kNnK), kRowBytes,
                                        {pair, pair + kPanelElements, depth(kNnK, 2)}, products);
            for (int64_t c = col; c < min_of(col + kPairColumns, t.n); c += kPanelColumns) {
                const __m512 scale = V::set1(nn_scale(t, c));
                for (int64_t i = 0; i < groups.height; ++i) {
                    const float* x = products + i * kPairColumns + c - col;
                    nn_store<V>(t, row + i, c, V::fma(V::load_sum(x), scale, V::zero()),
                                V::fma(V::load_sum(x + 16), scale, V::zero()));
                }
            }
        }
}

// ---- int8 rows ----

// Panels whose 0 is 0: tiles multiply signed values. Sums are exact, so rows of any number may be
// left to the vector kernels.
struct Int8V : Int8Vnni<ByPermute, 1, 0> {
    static constexpr int kPanelBlocks = 1;
    static constexpr bool kShifts = false;
};
using VnniV = Int8Vnni<ByPermute, 16, 128, NextShortColumns<1>>;

struct Int8Scaling {
    using Sum = int32_t;
    const float* unit[2];

    template <int kGroup>
    __attribute__((always_inline)) __m512 add(const int32_t* products, __m512 a_scale,
                                              __m512 total) const {
        const __m512 b_scale = _mm512_load_ps(unit[kGroup / 2] + 16 * (kGroup % 2));
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(products)),
                               _mm512_mul_ps(a_scale, b_scale), total);
    }
};

struct Int8Pair {
    Int8Panel<Int8V> panel[2];

    PanelPair tiles(const NtTile& t, int64_t k, int64_t col) const {
        return {panel[0].block[0].b, col + kPanelColumns < t.n ? panel[1].block[0].b : nullptr,
                depth(min_of(t.k - k, kBlockK), 1)};
    }
    Int8Scaling scaling() const { return {{panel[0].block[0].unit, panel[1].block[0].unit}}; }
};

void int8_in_tiles(const NtTile& t) {
    const Tiles tiles = tiles_of_rows(min_of(t.m, kTileHeight));
    auto* totals = static_cast<float*>(t.scratch);
    TileSums<Int8Products, Int8Scaling> sums(t.m, totals);
    RowScales scales;
    Int8Pair pair[2];  // of the columns in use, and of those whose sums are not added yet
    int at = 0;
    for (int64_t k = 0; k < t.k; k += kBlockK) {
        const float* a_scale = scales.load(t, k);
        for (int64_t col = 0; col < t.n; col += kPairColumns, at ^= 1) {
            for (int64_t i = 0; i < 2 && col + i * kPanelColumns < t.n; ++i)
                requantise_panel<Int8V>(
                    t, k, col + i * kPanelColumns,
                    [&](int64_t from) {
                        return NextPanel<1>(t, from, col + i * kPanelColumns, kBlockK);
                    },
                    &pair[at].panel[i]);
            PanelBehind<1> behind(t, k, kBlockK, col, kPairColumns, kPairColumns,
                                  sums.num_groups());
            sums.add(static_cast<const uint8_t*>(t.a) + k / kBlockK * t.a_block_stride, kBlockK,
                     pair[at].tiles(t, k, col), col, pair[at].scaling(), a_scale, k == 0,
                     [&] { behind.part(); });
        }
    }
    sums.finish();
    store_tile<V>(t, totals);
}

void int8_tile_or_few_rows(const NtTile& tile) {
    NtTile t = tile;
    t.prefetch_into_l2 = t.k < kLongColumn;
    if (t.m <= kFewInt8Rows) return int8_tile<VnniV>(t);
    int8_in_tiles(t);
}

}  // namespace

extern const Kernels kAmxKernels = {sizeof(V::Element),
                                    kTileRows,
                                    pack_rows<V>,
                                    nt_in_tiles<uint8_t>,
                                    nt_in_tiles<uint16_t>,
                                    nn_in_tiles<uint8_t>,
                                    nn_in_tiles<uint16_t>,
                                    quantize_row,
                                    quantize_row_int8,
                                    silu_mul,
                                    read_lines,
                                    tile_peak<Bf16Products>};

extern const Int8Kernels kAmxInt8Kernels = {sizeof(Int8V::Element), pack_int8_rows<VnniV>,
                                            int8_tile_or_few_rows, tile_peak<Int8Products>};

}  // namespace dsa::gemm::cpu
