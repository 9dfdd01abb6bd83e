#pragma once
// What a gemm kernel file provides for its ISA. Raw pointers only: ISA files see nothing of base
// but static inline functions. bf16 is uint16_t here, e4m3 is uint8_t.

#include <cstdint>

namespace dsa::gemm::cpu {

inline constexpr int64_t kBlockK = 128;  // values of k under one scale
// Rows and columns of an nt tile, at most: its sums and one or two blocks of k of its rows lie in
// an L2 of 1 MB.
inline constexpr int64_t kTileRows = 512;
inline constexpr int64_t kTileColumns = 256;
inline constexpr int64_t kColumnStep = 32;  // tiles start at multiples of it
inline constexpr int64_t kTileNn = 256;     // columns of an nn tile, at most
inline constexpr int64_t kNnK = kBlockK;    // rows of B in an nn tile: one scale block

// Rows that a kernel has arranged for itself in the scratch of its tiles.
struct ArrangedRows {
    const void* a = nullptr;  // where they are packed
    int64_t m = 0;
    int64_t k = 0;
    bool operator==(const ArrangedRows&) const = default;
};

// D[m, n] = A[m, k] B[n, k]^T. Order of operations of one element, whatever m, n and the place in a
// tile: within each 128 of k one chain of multiply-adds; then total = fma(chain, a_scale * b_scale,
// total). (Plain C++ sums 128 of k in 16 lanes instead.)
struct NtTile {
    int64_t m, n, k;  // m in 1 .. kTileRows, n in 1 .. kTileColumns
    const void* a;    // packed rows: block b of row i starts at a_block_stride * b + 128 * i
    int64_t a_block_stride;
    const float* a_scale;  // [m, blocks of k] by the strides below; nullptr: 1
    int64_t a_scale_stride_m, a_scale_stride_k;
    const int32_t* a_start;  // int8 rows: as PackRows gives it
    const void* b;           // [n, k] e4m3 or bf16
    int64_t ldb;
    const void* b_next;    // what the thread reads behind B, if known; nullptr: what lies behind it
    const float* b_scale;  // [blocks of n, blocks of k], row stride b_scale_ld; nullptr: 1
    int64_t b_scale_ld;
    void* d;  // bf16 or f32
    int64_t ldd;
    bool d_is_f32;
    void* scratch;  // nt_scratch_bytes(k)
    // What the scratch holds, for kernels that arrange rows: they set it. To be forgotten by the
    // caller when other rows are packed there.
    ArrangedRows* arranged;
    bool prefetch_into_l2;  // what is read much later; false: into L1
    bool follows_columns;   // the hardware, long ones, by itself
};
inline constexpr int64_t kNtPanelBytes = kColumnStep * kBlockK * 4;
// Of a tile: sums and two widened panels of B, or up to 64 rows of bf16, their scales and sums, as
// far as 20480 of k go.
static constexpr int64_t nt_scratch_bytes(int64_t k) {
    const int64_t blocks = k < 20480 ? (k + kBlockK - 1) / kBlockK : 160;
    const int64_t arranged = blocks * 64 * (kBlockK * 2 + 4) + 64 * kTileColumns * 4 + 64;
    const int64_t sums = kTileRows * kTileColumns * 4 + 2 * kNtPanelBytes;
    return sums > arranged ? sums : arranged;
}

// Rows of A as the nt kernels want them: `element_size` bytes a value, blocks of 128 of k, zeros up
// to the end of the last one.
struct PackRows {
    int64_t m, k;
    const void* a;  // [m, k] bf16 or e4m3 (Int8Kernels: int8)
    bool is_e4m3;
    int64_t lda;
    void* out;
    int64_t block_stride;  // elements
    // int8 rows: what the kernel's integer sums start from, of block b and row i at block_stride /
    // 128 * b + i. The portable kernel has no use for it.
    int32_t* start;
};

// D[m, n] = A[m, 128] B[128, n] * b_scale, bf16 out. n in 1 .. kTileNn. One chain of multiply-adds
// an element, whatever m and n, then the scale.
struct NnTile {
    int64_t m, n;
    const uint16_t* a;  // bf16
    int64_t lda;
    const void* b;  // [128, n] e4m3 or bf16
    int64_t ldb;
    const float* b_scale;  // [blocks of n]; nullptr: 1
    uint16_t* d;           // bf16
    int64_t ldd;
    void* panel;            // scratch of kNnPanelBytes
    bool prefetch_into_l2;  // as in NtTile
};
inline constexpr int64_t kNnPanelBytes = (kNnK * kTileNn + kTileRows * (kBlockK + kColumnStep)) * 4;

struct Kernels {
    int64_t element_size;
    int64_t tile_rows;  // of an nt tile, at most kTileRows: fewer where L2 is smaller
    void (*pack_rows)(const PackRows& p);
    void (*nt_e4m3)(const NtTile& t);
    void (*nt_bf16)(const NtTile& t);
    void (*nn_e4m3)(const NnTile& t);
    void (*nn_bf16)(const NnTile& t);
    // e4m3 codes and scales [ceil(n / 128)] of a row of bf16; same bits in every ISA.
    void (*quantize_row)(const uint16_t* x, int64_t n, bool ue8m0, uint8_t* q, float* scale);
    // int8 values and scales [ceil(n / 128)] of a row of bf16 (int8_tables.h); same bits in every
    // ISA.
    void (*quantize_row_int8)(const uint16_t* x, int64_t n, int8_t* q, float* scale);
    // out = bf16(silu(gate) * up)
    void (*silu_mul)(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out);
    // For measuring limits: reads n bytes (a multiple of 64), prefetching `ahead` bytes ahead (0:
    // not at all; the portable one never does), and depends on all of them; operations done in
    // `rounds` of the plainest loop of products (nullptr: no such products).
    uint64_t (*read)(const uint8_t* p, int64_t n, int64_t ahead);
    double (*multiply_peak)(int64_t rounds);
};

// The products of int8 rows: NtTile with B e4m3, and PackRows with A int8.
struct Int8Kernels {
    int64_t element_size;
    void (*pack_rows)(const PackRows& p);
    void (*nt)(const NtTile& t);
    double (*peak)(int64_t rounds);
};

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;
extern const Kernels kAmxKernels;

extern const Int8Kernels kPortableInt8Kernels;
extern const Int8Kernels kAvx2Int8Kernels;
extern const Int8Kernels kVnniInt8Kernels;
extern const Int8Kernels kVbmiInt8Kernels;
extern const Int8Kernels kAmxInt8Kernels;

}  // namespace dsa::gemm::cpu
