#pragma once
// Operators of the reference forward pass: plain fp32 code on row-major arrays, sums of norms and
// of softmax in double. Matrix products go through OpenBLAS, whose own threads are off: the thread
// pool splits the outputs. Formulas: DeepSeek-V3.2's published inference code.

#include <cstdint>
#include <span>
#include <vector>

#include "base/rope.h"
#include "base/thread_pool.h"
#include "dsa/model_info.h"
#include "gemm/weight.h"

namespace dsa::reference {

// A weight as fp32.
struct Matrix {
    int64_t n = 0;
    int64_t k = 0;
    bool fp8 = false;         // the checkpoint has it as e4m3: its inputs may be quantised
    std::vector<float> data;  // [n, k]

    const float* row(int64_t i) const { return data.data() + i * k; }
};
Matrix dequantize(const gemm::Weight& weight);

// y[m, n] = x[m, k] w[n, k]^T; ld* are row strides.
void matmul_nt(ThreadPool& pool, int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx,
               const float* w, int64_t ldw, float* y, int64_t ldy);
// On the calling thread. nt: y[m, n] = beta * y + x[m, k] w[n, k]^T; nn: y[m, n] = x[m, k] w[k, n].
void sgemm_nt(int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx, const float* w,
              int64_t ldw, float beta, float* y, int64_t ldy);
void sgemm_nn(int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx, const float* w,
              int64_t ldw, float* y, int64_t ldy);

void round_to_bf16(std::span<float> x);

// Replaces x[rows, k] by what is left of it after e4m3 with one scale per 128 values of a row.
void quantize_dequantize(std::span<float> x, int64_t k, bool ue8m0);

// One row. out may be x.
void rms_norm(std::span<const float> x, const float* weight, double eps, float* out);
void layer_norm(std::span<const float> x, const float* weight, const float* bias, double eps,
                float* out);

// x <- x H n^-0.5 with the Sylvester matrix H; the size n of x is a power of two.
void hadamard(std::span<float> x);

void softmax(std::span<float> x);

// out[i] = silu(gate[i]) * up[i]
void swiglu(std::span<const float> gate, std::span<const float> up, float* out);

// Positions of the k largest scores, ascending; all where there are no more than k. Ties go to the
// lower position, NaN counts as -inf.
std::vector<int32_t> top_k(std::span<const float> scores, int64_t k);

// Chosen routed experts of one token, ascending ids, and what their outputs are multiplied by.
struct Route {
    std::vector<int32_t> experts;
    std::vector<float> weights;
};
// logits, bias: [n_routed_experts].
Route route(const ModelConfig& config, std::span<const float> logits, const float* bias);

}  // namespace dsa::reference
