#pragma once
// Operators between the products: norms and SwiGLU. All arithmetic is fp32.
// Each row has one order of operations, the same in every ISA for the norms.

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

// out = bf16(silu(gate) * up); out may be gate.
struct SiluMulParams {
    int64_t m, n;
    const bf16* gate;  // [m, n] contiguous, as up and out
    const bf16* up;
    bf16* out;
};
void silu_mul(Exec& exec, const SiluMulParams& p);

}  // namespace dsa::gemm
