#pragma once
// What a gemm kernel file provides for its ISA. Raw pointers only: ISA files see nothing of base
// but static inline functions. bf16 is uint16_t here, e4m3 is uint8_t.

#include <cstdint>

namespace dsa::gemm::cpu {

inline constexpr int64_t kTileN = 32;        // columns of an nt tile; divides the scale block
inline constexpr int64_t kRowsTogether = 8;  // rows of A that a kernel may widen at a time
inline constexpr int64_t kTileNn = 64;       // columns of an nn tile
inline constexpr int64_t kNnK = 128;         // rows of B in an nn tile: one scale block

// D[m, n] = A[m, k] B[n, k]^T. Order of operations of one element, whatever m, n and the place in a
// tile: within each 64 of k one chain of multiply-adds; then total = fma(chain,
// a_scale * b_scale, total). (Plain C++ sums 128 of k in 16 lanes instead.)
struct NtTile {
    int64_t m, n, k;    // n in 1 .. kTileN
    const uint16_t* a;  // bf16 [m, k]
    int64_t lda;
    const float* a_scale;  // [m, blocks of k] by the strides below; nullptr: 1
    int64_t a_scale_stride_m, a_scale_stride_k;
    const void* b;  // [n, k] e4m3 or bf16
    int64_t ldb;
    const float* b_scale;  // [blocks of k]; nullptr: 1
    void* d;               // bf16 or f32
    int64_t ldd;
    bool d_is_f32;
    void* panel;  // scratch of nt_panel_bytes(k)
};

inline int64_t nt_panel_bytes(int64_t k) {
    return (kTileN + kRowsTogether) * ((k + 127) / 128 * 128) * 4;
}

// D[m, n] = A[m, 128] B[128, n] * b_scale, bf16 out. n in 1 .. kTileNn.
struct NnTile {
    int64_t m, n;
    const uint16_t* a;  // bf16
    int64_t lda;
    const void* b;  // [128, n] e4m3 or bf16
    int64_t ldb;
    float b_scale;
    uint16_t* d;  // bf16
    int64_t ldd;
    void* panel;  // scratch of kNnPanelBytes
};
inline constexpr int64_t kNnPanelBytes = kNnK * kTileNn * 4;

struct Kernels {
    void (*nt_e4m3)(const NtTile& t);
    void (*nt_bf16)(const NtTile& t);
    void (*nn_e4m3)(const NnTile& t);
    void (*nn_bf16)(const NnTile& t);
    // n codes to bf16, exact.
    void (*widen_e4m3)(const uint8_t* x, int64_t n, uint16_t* y);
    // e4m3 codes and scales [ceil(n / 128)] of a row of bf16; same bits in every ISA.
    void (*quantize_row)(const uint16_t* x, int64_t n, bool ue8m0, uint8_t* q, float* scale);
    // out = bf16(silu(gate) * up)
    void (*silu_mul)(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out);
};

extern const Kernels kPortableKernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;

}  // namespace dsa::gemm::cpu
