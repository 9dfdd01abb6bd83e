// gemm kernels with AMX. Panels of B are made by the vector kernels' code (nt_tile.h, int8_tile.h):
// what lanes of vectors hold there, columns with neighbouring values of k, is what tiles want.

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

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
#include "gemm/cpu/pack_rows.h"
#include "gemm/cpu/peak512.h"
#include "gemm/cpu/rows_avx512.h"

namespace dsa::gemm::cpu {
namespace {

struct V : LanesBf16 {
    static constexpr int kPanelBlocks = 1;
};
static_assert(2 * V::kLanes == kPanelColumns);

// Tiles of k that hold num_k values of `size` bytes.
int64_t depth(int64_t num_k, int64_t size) {
    return (num_k * size + kTileBytes - 1) / kTileBytes;
}

// Scales of rows for two blocks of k: the one in use, and the one whose sums are not added yet.
class RowScales {
  public:
    void load(const NtTile& t, int64_t k) {
        now_ ^= 1;
        row_scales(t, k, scale_[now_]);
    }
    const float* now() const { return scale_[now_]; }

  private:
    int now_ = 0;
    float scale_[2][kTileRows];
};

// Rows of a tile meet pairs of panels of B. Pairs gives
//   kSize                    bytes a value of B
//   start(k)                 for the block of k from `k`
//   make(i, k, col, next)    panel i of the pair, that of columns from `col`; next: prefetches
//   multiply(k, col, between)   adds the products of all rows with the pair from `col` to their
//                            sums; between() num_groups() times on the way
//   finish()                 sums are complete

// A pair of all columns before the next block of k: what many rows have there stays in L2.
template <class Pairs>
void multiply_in_tiles(const NtTile& t) {
    constexpr int64_t kSize = Pairs::kSize;
    const Tiles tiles = tiles_of_rows(min_of(t.m, kTileHeight));
    *t.arranged = {};
    Pairs pairs(t);
    for (int64_t k = 0; k < t.k; k += kBlockK) {
        pairs.start(k);
        for (int64_t col = 0; col < t.n; col += kPairColumns) {
            for (int64_t i = 0, c = col; i < 2 && c < t.n; ++i, c += kPanelColumns)
                pairs.make(i, k, c, NextPanel<kSize>(t, k, c, kBlockK));
            PanelBehind<kSize> behind(t, k, kBlockK, col, kPairColumns, kPairColumns,
                                      pairs.num_groups());
            pairs.multiply(k, col, [&] { behind.part(); });
        }
    }
    pairs.finish();
    store_tile<V>(t, static_cast<const float*>(t.scratch));
}

// ---- bf16 rows ----

constexpr int64_t kPanelElements = kPanelColumns * kBlockK;
constexpr int64_t kRowBytes = kBlockK * static_cast<int64_t>(sizeof(V::Element));

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

template <class Code>
class Bf16Pairs {
  public:
    static constexpr int64_t kSize = sizeof(Code);

    explicit Bf16Pairs(const NtTile& t)
        : t_(t),
          panels_(reinterpret_cast<V::Element*>(static_cast<float*>(t.scratch) +
                                                kTileRows * kTileColumns)),
          sums_(t.m, static_cast<float*>(t.scratch)) {
        static_assert(2 * kPanelElements * sizeof(V::Element) <= kNtPanelBytes);
    }
    int64_t num_groups() const { return sums_.num_groups(); }
    void start(int64_t k) { scales_.load(t_, k); }
    template <class Next>
    void make(int64_t i, int64_t k, int64_t col, const Next& next) {
        widen_panel<V, Code>(t_, k, col, next, panels_ + i * kPanelElements);
    }
    template <class Between>
    void multiply(int64_t k, int64_t col, const Between& between) {
        const bool has_second = col + kPanelColumns < t_.n;
        sums_.add(reinterpret_cast<const uint8_t*>(rows_at<V>(t_, k)), kRowBytes,
                  {panels_, has_second ? panels_ + kPanelElements : nullptr,
                   depth(loaded_k<V>(t_.k - k), sizeof(V::Element))},
                  col, Bf16Scaling{column_scale<V, Code>(t_, col, k)}, scales_.now(), k == 0,
                  between);
    }
    void finish() { sums_.finish(); }

  private:
    const NtTile& t_;
    V::Element* panels_;
    TileSums<Bf16Products, Bf16Scaling> sums_;
    RowScales scales_;
};

template <class Code>
void nt_in_tiles(const NtTile& t) {
    using Columns = std::conditional_t<sizeof(Code) == 1, WidenedColumns, PlainColumns>;
    if (!few_rows_in_tiles<Columns>(t)) multiply_in_tiles<Bf16Pairs<Code>>(t);
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

// Panels whose 0 is 0: tiles multiply signed values. Sums are exact, so a single row may be left to
// the vector kernel.
struct Int8V : Int8Vnni<ByPermute, 1, 0> {
    static constexpr int kPanelBlocks = 1;
    static constexpr bool kShifts = false;
};
using VnniV = Int8Vnni<ByPermute, 1>;

struct Int8Scaling {
    using Sum = int32_t;
    __m512 unit[4];  // of 64 columns

    Int8Scaling() = default;
    explicit Int8Scaling(const float* units) {
        for (int i = 0; i < 4; ++i) unit[i] = _mm512_load_ps(units + 16 * i);
    }

    template <int kGroup>
    __attribute__((always_inline)) __m512 add(const int32_t* products, __m512 a_scale,
                                              __m512 total) const {
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(products)),
                               _mm512_mul_ps(a_scale, unit[kGroup]), total);
    }
};

class Int8Pairs {
  public:
    static constexpr int64_t kSize = 1;

    explicit Int8Pairs(const NtTile& t) : t_(t), sums_(t.m, static_cast<float*>(t.scratch)) {}
    int64_t num_groups() const { return sums_.num_groups(); }
    void start(int64_t k) { scales_.load(t_, k); }
    template <class Next>
    void make(int64_t i, int64_t k, int64_t col, const Next& next) {
        requantise_panel<Int8V>(
            t_, k, col, [&](int64_t) { return next; }, &panels_[i]);
        __builtin_memcpy(units_ + i * kPanelColumns, panels_[i].block[0].unit,
                         sizeof(panels_[i].block[0].unit));
    }
    template <class Between>
    void multiply(int64_t k, int64_t col, const Between& between) {
        const bool has_second = col + kPanelColumns < t_.n;
        sums_.add(static_cast<const uint8_t*>(t_.a) + k / kBlockK * t_.a_block_stride, kBlockK,
                  {panels_[0].block[0].b, has_second ? panels_[1].block[0].b : nullptr,
                   depth(min_of(t_.k - k, kBlockK), 1)},
                  col, Int8Scaling(units_), scales_.now(), k == 0, between);
    }
    void finish() { sums_.finish(); }

  private:
    const NtTile& t_;
    Int8Panel<Int8V> panels_[2];
    alignas(64) float units_[kPairColumns] = {};
    TileSums<Int8Products, Int8Scaling> sums_;
    RowScales scales_;
};

// A single row is left to the vector kernel (measured).
void int8_in_tiles(const NtTile& t) {
    if (t.m == 1) {
        *t.arranged = {};
        return int8_tile<VnniV>(t);
    }
    if (!few_rows_in_tiles<RequantisedColumns>(t)) multiply_in_tiles<Int8Pairs>(t);
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
                                            int8_in_tiles, tile_peak<Int8Products>};

}  // namespace dsa::gemm::cpu
