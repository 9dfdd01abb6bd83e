#pragma once
// AMX: eight tiles of up to 16 rows of 64 bytes. Tiles 0 .. 3 are sums, the others operands: rows
// of one matrix, and k of the other one, as deep as rows of the first are long, with the values of
// k that fill a dword side by side, as panels of the vector kernels have them. In assembly, since
// g++ 12's intrinsics do not say that they read memory.

#include <cstdint>

#include "base/avx512.h"

namespace dsa::gemm::cpu {
namespace {

inline constexpr int64_t kTileHeight = 16;  // rows of a tile, at most
inline constexpr int64_t kTileBytes = 64;   // of a row of a tile
inline constexpr int64_t kTileSums = kTileHeight * kTileHeight;

// Makes tiles ready on the calling thread; they are taken back at the end: threads with tiles in
// use are slower to switch to.
class Tiles {
  public:
    struct Shape {
        int64_t rows, bytes;
    };
    // Of the sums; of the first operand, num_a tiles from 4 on; of the second, the rest.
    Tiles(Shape sum, Shape a, int num_a, Shape b) {
        Config config{};
        config.palette = 1;
        for (int i = 0; i < 8; ++i) {
            const Shape& shape = i < 4 ? sum : i < 4 + num_a ? a : b;
            config.bytes[i] = static_cast<uint16_t>(shape.bytes);
            config.rows[i] = static_cast<uint8_t>(shape.rows);
        }
        asm volatile("ldtilecfg %0" : : "m"(config));
    }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

  private:
    struct Config {
        uint8_t palette;
        uint8_t start_row;
        uint8_t reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    };
    static_assert(sizeof(Config) == 64);
};

// The next rows of the tile are `stride` bytes behind.
template <int kTile>
DSA_INLINE void load_tile(const void* p, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
}
// As load_tile(), for what is read once: past L1, where it would push out what is in use.
template <int kTile>
DSA_INLINE void stream_tile(const void* p, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
DSA_INLINE void store_tile_to(void* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
DSA_INLINE void zero_tile() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// fp32 sums of products of bf16: the even values of k and the odd ones are a chain each, from zero,
// whose sum is added; to nearest even, subnormals are zero.
struct Bf16Products {
    using Sum = float;
    template <int kSum, int kA, int kB>
    DSA_INLINE void add() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
    }
    static constexpr double kOpsAProduct = 2.0 * 16 * 16 * 32;
    static constexpr int kDepth = 4;  // tiles of k of a scale block
};

// int32 sums of products of int8.
struct Int8Products {
    using Sum = int32_t;
    template <int kSum, int kA, int kB>
    DSA_INLINE void add() {
        asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
    }
    static constexpr double kOpsAProduct = 2.0 * 16 * 16 * 64;
    static constexpr int kDepth = 2;
};

// Operations done in `rounds` of products.
template <class Products>
static inline double tile_peak(int64_t rounds) {
    constexpr Tiles::Shape kWhole{kTileHeight, kTileBytes};
    const Tiles tiles(kWhole, kWhole, 1, kWhole);
    alignas(64) static constexpr uint8_t kZeros[kTileHeight * kTileBytes] = {};
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    load_tile<4>(kZeros, kTileBytes);
    load_tile<5>(kZeros, kTileBytes);
    for (int64_t r = 0; r < rounds; ++r) {
        Products::template add<0, 4, 5>();
        Products::template add<1, 4, 5>();
        Products::template add<2, 4, 5>();
        Products::template add<3, 4, 5>();
    }
    return static_cast<double>(rounds) * 4.0 * Products::kOpsAProduct;
}

}  // namespace
}  // namespace dsa::gemm::cpu
