#pragma once
// 16 columns of B as rows of AMX tiles, block after block of k: as they lie in memory (bf16), or
// made of what lies there (e4m3). Everything is static inline: internal to the ISA file.

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "base/avx512.h"
#include "base/unrolled.h"
#include "gemm/cpu/amx_tiles.h"
#include "gemm/cpu/column_runs.h"
#include "gemm/cpu/columns.h"
#include "gemm/cpu/int8_vbmi.h"
#include "gemm/cpu/int8_vnni.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes_bf16.h"

#if defined(__AVX512BF16__)

namespace dsa::gemm::cpu {
namespace {

inline constexpr int64_t kTileSize = kTileHeight * kTileBytes;

using VisitsOfTiles = Visits<kTileHeight>;

// Tiles of a block of k: the next one is tile_bytes behind `first`, a tile's next row row_bytes.
struct BlockTiles {
    const uint8_t* first;
    int64_t tile_bytes;
    int64_t row_bytes;
};

// 16 columns of B and what is made of them. WidenedColumns, PlainColumns and RequantisedColumns
// have
//   Products                      of a tile of theirs and one of rows
//   kLongest                      runs of columns (Visits)
//   make<kSteps>(block, between)  makes tiles of a block of k, one block after another; between(i),
//                                 i in 0 .. kSteps - 1, on the way
//   tiles(block)                  of one of the last two
//   kOneUnit                      whether 1 means the same in all columns
//   units(block)                  of one of the last three: what 1 means in each column
//   each_unit(block)              the same, [16]; nullptr where kOneUnit
template <class Code, class Made>
struct ColumnsOfTiles {
    static constexpr int64_t kValues = kTileBytes / static_cast<int64_t>(sizeof(Made));  // of k

    ColumnsOfTiles(const NtTile& tile, const Visit<kTileHeight>& visit)
        : t(tile), first(visit.column[0]), b(static_cast<const Code*>(t.b)) {
        visit.offsets(t, offset);
    }
    int64_t valid(int64_t block) const { return t.k - block * kBlockK; }
    Made* made(int64_t block) { return tiles[block % 2]; }
    BlockTiles made_tiles(int64_t block) const {
        return {reinterpret_cast<const uint8_t*>(tiles[block % 2]), kTileSize, kTileBytes};
    }
    float scale(int64_t block) const {
        return column_scale<LanesBf16, Code>(t, first, block * kBlockK);
    }

    const NtTile& t;
    int64_t first;  // column
    const Code* b;
    int64_t offset[kTileHeight];
    alignas(64) Made tiles[2][kTileHeight * kBlockK];
};

// Columns of e4m3, which are read line by line.
template <class Made>
struct LinesOfColumns : ColumnsOfTiles<uint8_t, Made> {
    LinesOfColumns(const NtTile& tile, const VisitsOfTiles& visits, int64_t i, const Range& range)
        : ColumnsOfTiles<uint8_t, Made>(tile, visits[i]),
          heads(tile, visits, i, range, this->offset) {}

    // Those of a block of k: line(j, half, codes), codes being values 64 * half and on of column j,
    // zeros behind the last one of k; between(i) as in make(). What the hardware has brought to L2
    // is asked for once more, into L1, kAhead bytes before it is read; not at all where that is 0.
    template <int kSteps, int64_t kAhead, class Line, class Between>
    __attribute__((always_inline)) void each(int64_t block, const Line& line,
                                             const Between& between) {
        const uint8_t* codes = this->b + block * kBlockK;
        heads.some(block);
        simd::unrolled<2>([&](auto half) DSA_INLINE_LAMBDA {
            const int64_t valid = this->valid(block) - 64 * half;
            const __mmask64 mask = simd::mask_64(valid > 0 ? valid : 0);
            simd::unrolled<kTileHeight>([&](auto j) DSA_INLINE_LAMBDA {
                const uint8_t* column = codes + this->offset[j];
                if constexpr (half == 0) prefetch_page_head(column, kBlockK);
                if constexpr (kAhead > 0) __builtin_prefetch(column + 64 * half + kAhead);
                line(j, half, _mm512_maskz_loadu_epi8(mask, column + 64 * half));
                constexpr int kLine = 16 * half + j;
                constexpr int kStep = kLine * kSteps / 32;
                if constexpr (kStep < (kLine + 1) * kSteps / 32)
                    between(std::integral_constant<int, kStep>{});
            });
        });
    }

    RunHeads<1, kTileHeight> heads;
};

// e4m3 as bf16.
class WidenedColumns {
  public:
    using Products = Bf16Products;
    static constexpr int64_t kLongest = kBlockK / kTileHeight;
    static constexpr bool kOneUnit = true;

    WidenedColumns(const NtTile& t, const VisitsOfTiles& visits, int64_t i, const Range& range)
        : at_(t, visits, i, range) {}

    template <int kSteps, class Between>
    __attribute__((always_inline)) void make(int64_t block, const Between& between) {
        // One by one: g++ reads a struct again after each tile instruction.
        const LanesBf16::State table = LanesBf16::load_state();
        const __m512i low0 = table.low0;
        const __m512i low1 = table.low1;
        const __m512i high0 = table.high0;
        const __m512i high1 = table.high1;
        const __m512i order = table.order;
        const __m512i sign = table.sign;
        uint16_t* made = at_.made(block);
        // Up to 16 rows gain from lines in L1, more rows lose (measured on Granite Rapids).
        at_.each<kSteps, kSteps == Products::kDepth ? 320 : 0>(
            block,
            [&](auto j, auto half, __m512i codes) DSA_INLINE_LAMBDA {
                uint16_t* to = made + (2 * half * kTileHeight + j) * at_.kValues;
                __m512i v[2];
                simd::e4m3_to_bf16({low0, low1, high0, high1, order, sign}, codes, &v[0], &v[1]);
                _mm512_store_si512(to, v[0]);
                _mm512_store_si512(to + kTileHeight * at_.kValues, v[1]);
            },
            between);
    }
    BlockTiles tiles(int64_t block) const { return at_.made_tiles(block); }
    const float* each_unit(int64_t /*block*/) const { return nullptr; }
    __m512 units(int64_t block) const { return _mm512_set1_ps(at_.scale(block)); }

  private:
    LinesOfColumns<uint16_t> at_;
};

// bf16: whole blocks as they lie in memory, side by side: rows of a tile have one stride.
class PlainColumns {
  public:
    using Products = Bf16Products;
    static constexpr int64_t kLongest = 1;
    static constexpr bool kOneUnit = true;

    PlainColumns(const NtTile& t, const VisitsOfTiles& visits, int64_t i, const Range& /*range*/)
        : at_(t, visits[i]) {}

    template <int kSteps, class Between>
    __attribute__((always_inline)) void make(int64_t block, const Between& between) {
        if (!is_in_place(block)) copy(block);
        simd::unrolled<kSteps>([&](auto i) DSA_INLINE_LAMBDA { between(i); });
    }
    BlockTiles tiles(int64_t block) const {
        if (!is_in_place(block)) return at_.made_tiles(block);
        return {reinterpret_cast<const uint8_t*>(at_.b + at_.offset[0] + block * kBlockK),
                kTileBytes, 2 * at_.t.ldb};
    }
    const float* each_unit(int64_t /*block*/) const { return nullptr; }
    __m512 units(int64_t /*block*/) const { return _mm512_set1_ps(1.0F); }

  private:
    bool is_in_place(int64_t block) const {
        return at_.first + kTileHeight <= at_.t.n && at_.valid(block) >= kBlockK;
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
    static constexpr int64_t kLongest = kBlockK / kTileHeight;
    static constexpr bool kOneUnit = false;

    RequantisedColumns(const NtTile& t, const VisitsOfTiles& visits, int64_t i, const Range& range)
        : at_(t, visits, i, range), tops_(largest(range.begin)) {}

    template <int kSteps, class Between>
    __attribute__((always_inline)) void make(int64_t block, const Between& between) {
        alignas(64) int32_t top[kTileHeight];
        V::store_largest(tops_, top);
        _mm512_store_ps(unit_[block % kUnits],
                        _mm512_mul_ps(V::units(tops_), _mm512_set1_ps(at_.scale(block))));
        // Among what comes next: finding them is a long chain.
        if (at_.valid(block) > kBlockK) tops_ = largest(block + 1);
        int8_t* made = at_.made(block);
        at_.each<kSteps, 512>(
            block,
            [&](auto j, auto half, __m512i codes) DSA_INLINE_LAMBDA {
                _mm512_store_si512(made + (half * kTileHeight + j) * at_.kValues,
                                   V::requantised(top[j], codes));
            },
            between);
    }
    BlockTiles tiles(int64_t block) const { return at_.made_tiles(block); }
    const float* each_unit(int64_t block) const { return unit_[block % kUnits]; }
    __m512 units(int64_t block) const { return _mm512_load_ps(unit_[block % kUnits]); }

  private:
    using V = Int8Vnni<ByPermute, 1, 0>;  // 0 is 0: tiles multiply signed values
    static constexpr int64_t kUnits = 4;  // blocks

    __m512i largest(int64_t block) const {
        return V::largest(at_.b + block * kBlockK, at_.offset, at_.valid(block));
    }

    LinesOfColumns<int8_t> at_;
    __m512i tops_;
    alignas(64) float unit_[kUnits][kTileHeight];
};

}  // namespace
}  // namespace dsa::gemm::cpu

#endif
