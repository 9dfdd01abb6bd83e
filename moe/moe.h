#pragma once
// Mixture of experts (DeepSeek-V3): a sigmoid router with groups and a selection bias, and the
// experts' SwiGLU MLPs over the tokens that chose them. Weights stay where the checkpoint has them.

#include <cstdint>

#include "base/dtypes.h"
#include "base/exec.h"
#include "gemm/gemm.h"

namespace dsa::moe {

// a = sigmoid(logits); choice b = a + bias. A group's score is the sum of its two largest b; the
// topk_group best groups stay, the others' b become -inf; the topk largest b are chosen. Weights
// are the chosen a, divided by their sum if norm_topk_prob, times routed_scaling_factor. Ties go to
// the lower group or expert.
struct RouteParams {
    int64_t num_tokens;
    int64_t num_experts;
    int64_t n_group;
    int64_t topk_group;
    int64_t topk;  // experts a token
    bool norm_topk_prob;
    float routed_scaling_factor;
    const float* logits;  // [num_tokens, num_experts]
    const float* bias;    // [num_experts]
    int32_t* experts;     // [num_tokens, topk], ascending
    float* weights;       // [num_tokens, topk]
};
void route(Exec& exec, const RouteParams& p);
int64_t route_scratch_bytes(int64_t num_experts, int64_t n_group, int num_threads);

// One MLP a group: gate, up [intermediate, hidden] and down [hidden, intermediate].
struct ExpertWeights {
    const gemm::Weight* const* gate;  // [num_experts]
    const gemm::Weight* const* up;
    const gemm::Weight* const* down;
};

// An MLP over all rows: out = W_down bf16(silu(W_gate x) * (W_up x)).
struct MlpParams {
    int64_t m;
    const bf16* x;  // [m, hidden] contiguous
    const gemm::Weight* gate;
    const gemm::Weight* up;
    const gemm::Weight* down;
    gemm::Precision precision;
    gemm::ScaleFormat format;
    gemm::Output out;
};
void mlp(Exec& exec, const MlpParams& p);
int64_t mlp_scratch_bytes(int64_t m, int64_t hidden, int64_t intermediate, int num_threads);

// out = bf16(sum over slots, ascending, of weight * expert(x), plus shared(x)); sums in fp32.
struct ExpertMlpParams {
    int64_t num_tokens;
    int64_t num_experts;
    int64_t topk;
    const bf16* x;           // [num_tokens, hidden] contiguous, as out
    const int32_t* experts;  // [num_tokens, topk] from route()
    const float* weights;    // [num_tokens, topk]
    ExpertWeights routed;
    const gemm::Weight* shared_gate;  // nullptr: no shared expert
    const gemm::Weight* shared_up;
    const gemm::Weight* shared_down;
    gemm::Precision precision;
    gemm::ScaleFormat format;
    bf16* out;
};
void expert_mlp(Exec& exec, const ExpertMlpParams& p);

struct ExpertMlpSizes {
    int64_t num_tokens, num_experts, topk, hidden, intermediate, shared_intermediate;
};
int64_t expert_mlp_scratch_bytes(const ExpertMlpSizes& s, int num_threads);

}  // namespace dsa::moe
