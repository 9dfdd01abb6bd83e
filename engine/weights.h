#pragma once
// All weights of a model, bound by name, shape and type (engine/checkpoint.cc). Views into the
// mapped files, owned by Checkpoint; field names follow the checkpoint's tensor names.

#include <vector>

#include "gemm/weight.h"

namespace dsa {

using gemm::Weight;

// Norm parameters are fp32 here whatever the file has.
struct IndexerWeights {
    Weight wq_b;                           // [index_n_heads * 128, q_lora_rank]
    Weight wk;                             // [128, hidden]
    Weight weights_proj;                   // [index_n_heads, hidden]
    const float* k_norm_weight = nullptr;  // [128]
    const float* k_norm_bias = nullptr;    // [128]
};

struct AttentionWeights {
    Weight q_a_proj;                        // [q_lora_rank, hidden]
    const float* q_a_layernorm = nullptr;   // [q_lora_rank]
    Weight q_b_proj;                        // [heads * 192, q_lora_rank]
    Weight kv_a_proj_with_mqa;              // [576, hidden]
    const float* kv_a_layernorm = nullptr;  // [512]
    Weight kv_b_proj;                       // [heads * 256, 512]
    Weight o_proj;                          // [hidden, heads * 128]
    IndexerWeights indexer;
};

struct MlpWeights {
    Weight gate_proj;  // [intermediate, hidden]
    Weight up_proj;    // [intermediate, hidden]
    Weight down_proj;  // [hidden, intermediate]
};

struct MoeWeights {
    Weight gate;                                     // [n_routed_experts, hidden]
    const float* e_score_correction_bias = nullptr;  // [n_routed_experts]
    std::vector<MlpWeights> experts;                 // [n_routed_experts]
    MlpWeights shared_experts;                       // unused where n_shared_experts is 0
};

struct LayerWeights {
    const float* input_layernorm = nullptr;  // [hidden]
    AttentionWeights self_attn;
    const float* post_attention_layernorm = nullptr;  // [hidden]
    bool is_moe = false;
    MlpWeights mlp;  // !is_moe
    MoeWeights moe;  // is_moe
};

// Multi-token prediction: z = eh_proj [enorm(embedding); hnorm(hidden)], one decoder layer, a head.
struct MtpWeights {
    const float* enorm = nullptr;  // [hidden]
    const float* hnorm = nullptr;  // [hidden]
    Weight eh_proj;                // [hidden, 2 * hidden]
    LayerWeights layer;
    const float* shared_head_norm = nullptr;  // [hidden]
    Weight embed_tokens;                      // the main model's where the file has none
    Weight shared_head;                       // likewise lm_head
};

struct ModelWeights {
    Weight embed_tokens;  // [vocab, hidden], bf16
    std::vector<LayerWeights> layers;
    const float* norm = nullptr;  // [hidden]
    Weight lm_head;               // [vocab, hidden]; embed_tokens where these are tied
    std::vector<MtpWeights> mtp;
};

}  // namespace dsa
