#pragma once
// Matrix products D[m, n] = A[m, k] B[n, k]^T with B as the checkpoint has it: e4m3 with one fp32
// scale per 128 x 128 block, or bf16. Partial sums over 128 of k are promoted to an fp32
// accumulator with the scales (DeepSeek-V3 report, arXiv 2412.19437, section 3.3.2).
//
// Any m >= 1, n, k; nothing has to be a multiple of anything. Each element of D is computed by one
// order of operations that depends on its own row of A and row of B only: not on m, the threads or
// its neighbours (docs/numerics.md). Buffers belong to the caller and do not overlap. Wrong
// arguments throw kInvalidArgument. Scratch comes from the context.

#include <cstdint>
#include <span>

#include "base/dtypes.h"
#include "base/exec.h"
#include "gemm/quantize.h"
#include "gemm/weight.h"

namespace dsa::gemm {

// What happens to activations that meet an FP8 weight.
enum class Precision {
    kBf16,  // bf16, not quantised
    kFp8,   // e4m3, a scale per 128 values
    kInt8,  // int8, absmax / 127 per 128 values; the weight is requantised on the fly
};

// The A operand.
struct Activations {
    const void* data = nullptr;  // [m, k] of dtype, row stride ld
    DType dtype = DType::kBF16;  // kBF16, kE4M3 or kI8 in [-127, 127]
    int64_t ld = 0;
    const float* scale = nullptr;  // kE4M3, kI8: [m, num_blocks(k)] by the strides below
    int64_t scale_stride_m = 0;
    int64_t scale_stride_k = 0;
};

// The D operand.
struct Output {
    void* data = nullptr;        // [m, n] of dtype, row stride ld
    DType dtype = DType::kBF16;  // kBF16 or kF32
    int64_t ld = 0;
};

struct GemmParams {
    int64_t m = 0;
    Activations a;
    Weight b;  // n and k
    Output d;
};
void fp8_gemm_nt(Exec& exec, const GemmParams& p);       // A e4m3, B e4m3
void bf16_fp8_gemm_nt(Exec& exec, const GemmParams& p);  // A bf16, B e4m3
void int8_fp8_gemm_nt(Exec& exec,
                      const GemmParams& p);          // A int8, B e4m3, requantised (numerics.md)
void bf16_gemm_nt(Exec& exec, const GemmParams& p);  // A bf16, B bf16

int64_t gemm_scratch_bytes(int64_t m, int64_t k, int num_threads);

// Several products with weights of one shape, e4m3, a pointer a group: experts stay where the
// checkpoint has them. Groups may be empty. Rows that belong to no group are not touched.
struct GroupedGemm {
    int64_t num_groups = 0;
    Activations a;
    const Weight* const* b = nullptr;  // [num_groups]
    Output d;                          // rows as those of a
};
// Rows offsets[g] .. offsets[g + 1] belong to group g.
struct GroupedContiguousParams : GroupedGemm {
    const int32_t* offsets = nullptr;  // [num_groups + 1], ascending from 0
};
// Rows g * max_m .. g * max_m + masked_m[g] belong to group g.
struct GroupedMaskedParams : GroupedGemm {
    int64_t max_m = 0;
    const int32_t* masked_m = nullptr;  // [num_groups]
};
void m_grouped_fp8_gemm_nt_contiguous(Exec& exec, const GroupedContiguousParams& p);
void m_grouped_bf16_fp8_gemm_nt_contiguous(Exec& exec, const GroupedContiguousParams& p);
void m_grouped_int8_fp8_gemm_nt_contiguous(Exec& exec, const GroupedContiguousParams& p);
void m_grouped_fp8_gemm_nt_masked(Exec& exec, const GroupedMaskedParams& p);
void m_grouped_bf16_fp8_gemm_nt_masked(Exec& exec, const GroupedMaskedParams& p);
void m_grouped_int8_fp8_gemm_nt_masked(Exec& exec, const GroupedMaskedParams& p);
int64_t grouped_gemm_scratch_bytes(int64_t rows, int64_t k, int64_t num_groups, int num_threads);

// ---- layers ----

// One linear layer of several that read the same input.
struct LinearOutput {
    const Weight* weight;
    Output d;
};

// The rows that linear layers read.
struct LinearInput {
    const bf16* x = nullptr;  // [m, k], row stride ld
    int64_t ld = 0;
    const bf16* up = nullptr;  // as x; not null: the layers read bf16(silu(x) * up)
};

// Up to 8 linear layers over the same rows. These are made ready once (SwiGLU product, quantised
// where precision says so and a weight is FP8; a bf16 weight always meets bf16 rows) on their way
// to the kernels, in the same pass.
struct LinearParams {
    int64_t m = 0;
    LinearInput in;
    Precision precision = Precision::kBf16;
    ScaleFormat format = ScaleFormat::kUe8m0;
    std::span<const LinearOutput> outputs;
};
void linear(Exec& exec, const LinearParams& p);
int64_t linear_scratch_bytes(int64_t m, int64_t k, int num_threads);

// As linear(), for rows that are sorted by group (expert): rows offsets[g] .. offsets[g + 1]
// meet weights[g]; groups may be empty, weights stay where the checkpoint has them. (DeepGEMM:
// m_grouped_gemm_nt_contiguous.)
struct GroupedOutput {
    const Weight* const* weights;  // [num_groups], all of the same n and k
    Output d;                      // [offsets[num_groups], n]
};
struct GroupedLinearParams {
    int64_t num_groups = 0;
    const int32_t* offsets = nullptr;  // [num_groups + 1], ascending from 0
    LinearInput in;
    Precision precision = Precision::kBf16;
    ScaleFormat format = ScaleFormat::kUe8m0;
    std::span<const GroupedOutput> outputs;  // at most 8
};
void m_grouped_linear_contiguous(Exec& exec, const GroupedLinearParams& p);
int64_t grouped_linear_scratch_bytes(int64_t rows, int64_t k, int64_t num_groups, int num_threads);

// ---- slices of one weight ----

// For each batch b: D_b[m, n] = A_b[m, k] op(B_b), where B_b is rows b_row + b * b_row_stride, n
// (nt) or k (nn) of them, of the weight. A and D of a batch start a_stride and d_stride elements
// after the one before. bf16 in and out. First rows must be multiples of 128; nn needs k = 128.
struct BatchedGemmParams {
    int64_t batches = 0;
    int64_t m = 0;
    int64_t n = 0;
    int64_t k = 0;
    const bf16* a = nullptr;
    int64_t lda = 0;
    int64_t a_stride = 0;
    Weight b;
    int64_t b_row = 0;
    int64_t b_row_stride = 0;
    bf16* d = nullptr;
    int64_t ldd = 0;
    int64_t d_stride = 0;
};
void batched_gemm_nt(Exec& exec, const BatchedGemmParams& p);  // B_b [n, k]
void batched_gemm_nn(Exec& exec, const BatchedGemmParams& p);  // B_b [k, n]
int64_t batched_gemm_scratch_bytes(int64_t k, int num_threads);

}  // namespace dsa::gemm
