#pragma once
// Norms between the products (SwiGLU products are made by the layers that read them: LinearInput of
// gemm.h). All arithmetic is fp32, in one order of operations a row, the same in every ISA.

#include <cstdint>

#include "base/dtypes.h"
#include "base/exec.h"

namespace dsa::gemm {

// out = bf16(w * x * rsqrt(mean(x^2) + eps)), x in fp32. out may be x.
void rms_norm_row(const float* x, const float* weight, float eps, int64_t n, bf16* out);

struct RmsNormParams {
    int64_t m, n;
    const bf16* x;  // [m, n], row stride ldx
    int64_t ldx;
    const float* weight;  // [n]
    float eps;
    bf16* out;  // [m, n] contiguous; may be x where ldx is n
};
void rms_norm(Exec& exec, const RmsNormParams& p);

// residual += add; out = norm of the sum.
struct AddRmsNormParams {
    int64_t m, n;
    float* residual;      // [m, n] contiguous
    const bf16* add;      // [m, n] contiguous; nullptr: nothing is added
    const float* weight;  // [n]
    float eps;
    bf16* out;  // [m, n] contiguous
};
void add_rms_norm(Exec& exec, const AddRmsNormParams& p);

}  // namespace dsa::gemm
