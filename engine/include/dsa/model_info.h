#pragma once
// What a checkpoint is: its configuration, its tensors, the memory it needs. Plain data.

#include <cstdint>
#include <string>
#include <vector>

namespace dsa {

// config.json in the field's own names. Defaults are what an absent key means.
struct ModelConfig {
    std::string model_type;
    std::string architecture;
    int64_t vocab_size = 0;
    int64_t hidden_size = 0;
    int64_t num_hidden_layers = 0;
    int64_t num_nextn_predict_layers = 0;  // MTP layers, stored behind the others
    int64_t max_position_embeddings = 0;
    double rms_norm_eps = 1e-6;
    bool tie_word_embeddings = false;

    // MLA
    int64_t num_attention_heads = 0;
    int64_t q_lora_rank = 0;
    int64_t kv_lora_rank = 0;
    int64_t qk_nope_head_dim = 0;
    int64_t qk_rope_head_dim = 0;
    int64_t v_head_dim = 0;

    // Lightning indexer
    int64_t index_n_heads = 0;
    int64_t index_head_dim = 0;
    int64_t index_topk = 0;
    bool indexer_rope_interleave = false;  // GLM-5's key; false: half-split (V3.2)

    // Feed-forward
    int64_t intermediate_size = 0;
    int64_t first_k_dense_replace = 0;
    int64_t moe_layer_freq = 1;
    int64_t moe_intermediate_size = 0;
    int64_t n_routed_experts = 0;
    int64_t n_shared_experts = 0;
    int64_t num_experts_per_tok = 0;
    int64_t n_group = 1;
    int64_t topk_group = 1;
    bool norm_topk_prob = true;
    double routed_scaling_factor = 1.0;

    // RoPE; factor 1 means none
    double rope_theta = 10000.0;
    double rope_factor = 1.0;
    double rope_beta_fast = 32.0;
    double rope_beta_slow = 1.0;
    double rope_mscale_all_dim = 0.0;
    int64_t rope_original_max_position_embeddings = 0;

    // Quantisation
    std::string quant_method;   // "fp8", or "" for none
    bool ue8m0_scales = false;  // scale_fmt: activation scales are powers of two

    // Token ids; generation_config.json has precedence over config.json. -1, or empty: not given
    int32_t bos_token_id = -1;
    std::vector<int32_t> eos_token_ids;

    // Sampling defaults of generation_config.json
    bool do_sample = false;
    double temperature = 1.0;
    double top_p = 1.0;
    int64_t top_k = 0;  // 0: off
    double repetition_penalty = 1.0;
};

struct TensorSummary {
    std::string dtype;  // "F8_E4M3", "BF16", "F32"
    int64_t count = 0;  // tensors
    int64_t elements = 0;
    int64_t bytes = 0;
};

struct ModelInfo {
    std::string path;
    ModelConfig config;
    std::vector<TensorSummary> tensors;  // one a dtype, of those that are bound
    int64_t weight_bytes = 0;            // mapped from the checkpoint
    int64_t copied_bytes = 0;            // unaligned tensors, copied
    int64_t parameters = 0;              // scales not counted
    int64_t active_parameters = 0;       // used for one token, MTP layers not counted
    int64_t active_bytes = 0;            // of the active parameters, scales counted
    int64_t mtp_parameters = 0;
    bool has_tokenizer = false;
    std::vector<std::string> warnings;
};

// Bytes, computed before anything is allocated: what a process with one session has resident at its
// peak, once every weight was read and the context is full (`dsa info --measure` compares).
struct MemoryPlan {
    int64_t context_length = 0;
    int64_t weights = 0;   // mapped: all tensors that are bound, MTP layers included
    int64_t copies = 0;    // tensors that could not be used in place
    int64_t kv_cache = 0;  // KV records and index keys of context_length tokens
    int64_t scratch = 0;   // activations and temporaries of one session
    int64_t tables = 0;    // RoPE tables and the like, one an engine
    // Program and libraries, threads, tokenizer, what is known of each tensor, page tables. Of the
    // host program only what any program needs.
    int64_t process = 0;
    int64_t total() const { return weights + copies + kv_cache + scratch + tables + process; }
};

// The context that an engine opens with unless told otherwise: what the model was made for, at most
// 32768 tokens.
int64_t default_context_length(const ModelConfig& config);

}  // namespace dsa
