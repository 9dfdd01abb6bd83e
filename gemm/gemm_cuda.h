#pragma once
// The products of gemm.h on a Hopper GPU (sm_90a), built where CUDA is (DSA_CUDA). Pointers in
// the parameters are device pointers; calls return as soon as their kernels are queued on the
// context's stream, and can be captured in a CUDA graph. Any m >= 1; n a multiple of 8, k of 16. A,
// B and D are 16-byte aligned, row strides multiples of 16 bytes; rows of B are contiguous. Wrong
// arguments throw kInvalidArgument.
//
// Scales of A: as quantize_1x128 below writes them, scale_stride_m = 1 and scale_stride_k a
// multiple of 4; any other strides are accepted and cost a transposition into the context's
// workspace.
//
// Arithmetic as on the CPU: each 128 of k is one chain (of the tensor core), then total =
// fma(chain, scale_a * scale_b, total). docs/numerics.md says which rows get the same bits.

#include <cstdint>

#include "base/cuda_exec.h"
#include "gemm/gemm.h"

namespace dsa::gemm {

void fp8_gemm_nt(CudaExec& exec, const GemmParams& p);

// A bf16, B bf16: cuBLASLt's product, in fp32 sums whose order depends on m. The library is opened
// at the first call (DSA_CUBLASLT=PATH names it; kUnsupported where there is none). n and k are
// multiples of 8. Uses the context's workspace.
void bf16_gemm_nt(CudaExec& exec, const GemmParams& p);

// Weights of all groups lie one behind another: b.data [num_groups][n, k], b.scale_inv
// [num_groups][ceil(n / 128), ceil(k / 128)]; at most 512 groups. Groups may be empty; rows that
// belong to no group are not touched.
struct CudaGroupedGemm {
    int64_t num_groups = 0;
    Activations a;
    Weight b;  // n, k and scale_inv of one group, the first
    Output d;
    int64_t expected_rows = 0;  // of a group, for the choice of the kernel and of what it fetches
                                // ahead; 0: unknown. Any value gives the same bits
};
// Rows offsets[g] .. offsets[g + 1] belong to group g.
struct CudaGroupedContiguousParams : CudaGroupedGemm {
    int64_t m = 0;                     // rows of A and D
    const int32_t* offsets = nullptr;  // device, [num_groups + 1], ascending from 0 to at most m
};
// Rows g * max_m .. g * max_m + masked_m[g] belong to group g. Scales of A: a matrix [max_m, ceil(k
// / 128)] a group, with the strides of a; matrices one behind another.
struct CudaGroupedMaskedParams : CudaGroupedGemm {
    int64_t max_m = 0;
    const int32_t* masked_m = nullptr;  // device, [num_groups], at most max_m
};
void m_grouped_fp8_gemm_nt_contiguous(CudaExec& exec, const CudaGroupedContiguousParams& p);
void m_grouped_fp8_gemm_nt_masked(CudaExec& exec, const CudaGroupedMaskedParams& p);

// Quantize1x128Params of quantize.h, but for the scales: [ceil(k / 128)][aligned_m], aligned_m >= m
// a multiple of 4. Same codes and scales as on the CPU.
struct CudaQuantize1x128Params {
    int64_t m = 0, k = 0;
    const bf16* x = nullptr;  // [m, k], row stride ldx
    int64_t ldx = 0;
    ScaleFormat format = ScaleFormat::kUe8m0;
    e4m3* q = nullptr;  // [m, k] contiguous
    float* scale = nullptr;
    int64_t aligned_m = 0;
};
void quantize_1x128(CudaExec& exec, const CudaQuantize1x128Params& p);

}  // namespace dsa::gemm
