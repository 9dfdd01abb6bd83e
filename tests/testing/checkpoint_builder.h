#pragma once
// Small random checkpoints of any size in the HuggingFace layout, for tests. Activations stay O(1)
// through the layers. A tensor's values depend on the seed, its name and its shape only: two specs
// that differ in how tensors are stored hold the same model.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace dsa::testing {

// A folder under the system's temporary one, removed with all its contents at the end.
class TempDir {
  public:
    TempDir();
    ~TempDir();
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

struct CheckpointSpec {
    // Sizes, by their names in config.json. The defaults avoid multiples of 128.
    int64_t vocab_size = 301;
    int64_t hidden_size = 320;
    int64_t num_hidden_layers = 3;
    int64_t num_nextn_predict_layers = 0;
    int64_t num_attention_heads = 3;
    int64_t q_lora_rank = 192;
    int64_t index_n_heads = 5;
    int64_t index_topk = 48;
    int64_t intermediate_size = 416;
    int64_t moe_intermediate_size = 96;
    int64_t n_routed_experts = 6;
    int64_t n_shared_experts = 1;
    int64_t num_experts_per_tok = 2;
    int64_t n_group = 3;
    int64_t topk_group = 2;
    int64_t first_k_dense_replace = 1;
    int64_t moe_layer_freq = 1;
    int64_t max_position_embeddings = 4096;
    double routed_scaling_factor = 1.5;
    double rms_norm_eps = 1e-6;
    double rope_theta = 10000.0;
    double rope_factor = 4.0;  // 1: no rope_scaling
    int64_t rope_original_max_position_embeddings = 1024;
    bool indexer_rope_interleave = false;
    bool tie_word_embeddings = false;  // no lm_head.weight

    // How the tensors are stored.
    bool norms_f32 = false;     // else BF16 (their values are on the BF16 grid in both)
    bool k_norm_bf16 = false;   // else F32
    bool plain_scales = false;  // weight scales absmax / 448, else powers of two
    bool ue8m0 = true;          // config has scale_fmt
    bool bf16_lm_head = true;
    // POSIX extended regular expressions, searched for in the names of linears.
    std::string bf16_linears;  // stored as BF16
    std::string fp8_linears;   // FP8 also where that is not usual (eh_proj, mlp.gate, weights_proj)
    bool mtp_own_embeddings = false;  // MTP layers have their embed_tokens and shared_head.head
    int shards = 2;                   // 1: model.safetensors without an index
    bool scales_in_other_shard = false;
    bool misalign = false;  // file data starts at an odd offset
    uint64_t seed = 1;
};

struct RawTensor {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    std::vector<uint8_t> bytes;
};

void write_safetensors(const std::filesystem::path& path, const std::vector<RawTensor>& tensors,
                       bool misalign = false);
void write_json(const std::filesystem::path& path, const nlohmann::json& json);

nlohmann::json make_config(const CheckpointSpec& spec);
std::vector<RawTensor> make_tensors(const CheckpointSpec& spec);

// config.json, the shards and their index; of `spec` only how tensors are laid out in files counts.
void write_checkpoint(const std::filesystem::path& dir, const CheckpointSpec& spec,
                      const nlohmann::json& config, const std::vector<RawTensor>& tensors);
void write_checkpoint(const std::filesystem::path& dir, const CheckpointSpec& spec);

}  // namespace dsa::testing
