// config.json and generation_config.json: read, checked field by field, then as a whole.

#include <array>
#include <string>
#include <utility>

#include "attention/attention.h"
#include "base/mapped_file.h"
#include "engine/checkpoint.h"
#include "engine/json.h"
#include "gemm/weight.h"
#include "indexer/indexer.h"

namespace dsa {

namespace {

namespace fs = std::filesystem;

// Bounds that keep every product of two sizes far from overflow.
constexpr int64_t kMaxDim = int64_t{1} << 24;
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxExperts = 1 << 16;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxPositions = int64_t{1} << 30;
constexpr double kTiny = 1e-30;
constexpr double kHuge = 1e30;

std::string quoted(const std::string& s) {
    return '"' + s + '"';
}

// The checks below are of features that have one implementation: another valid value is
// unsupported.
void expect_text(const JsonFields& f, const char* key, const std::string& expected) {
    if (f.text_or(key, expected) != expected)
        f.fail(ErrorCode::kUnsupported, key, quoted(expected));
}

void expect_flag(const JsonFields& f, const char* key, bool expected) {
    if (f.boolean_or(key, expected) != expected)
        f.fail(ErrorCode::kUnsupported, key, expected ? "true" : "false");
}

int64_t fixed_size(const JsonFields& f, const char* key, int64_t expected) {
    if (f.integer(key, 1, kMaxDim) != expected)
        f.fail(ErrorCode::kUnsupported, key,
               std::to_string(expected) + " (a constant of the kernels)");
    return expected;
}

void read_architecture(const JsonFields& f, ModelConfig& c) {
    static const std::array<std::pair<std::string, std::string>, 2> kSupported = {
        {{"deepseek_v32", "DeepseekV32ForCausalLM"}, {"glm_moe_dsa", "GlmMoeDsaForCausalLM"}}};
    c.model_type = f.text_or("model_type", "");
    const auto architectures = f.texts("architectures");
    if (!architectures.empty()) c.architecture = architectures.front();
    if (c.model_type.empty() && c.architecture.empty()) f.fail("model_type", "\"deepseek_v32\"");
    for (const auto& [type, architecture] : kSupported) {
        if (!c.model_type.empty() && c.model_type != type) continue;
        if (!c.architecture.empty() && c.architecture != architecture) continue;
        c.model_type = type;
        c.architecture = architecture;
        return;
    }
    const bool known_type = c.model_type == kSupported[0].first ||
                            c.model_type == kSupported[1].first || c.model_type.empty();
    f.fail(ErrorCode::kUnsupported, known_type ? "architectures" : "model_type",
           known_type ? "[\"DeepseekV32ForCausalLM\"] or [\"GlmMoeDsaForCausalLM\"], by model_type"
                      : "\"deepseek_v32\" or \"glm_moe_dsa\"");
}

void read_sizes(const JsonFields& f, ModelConfig& c) {
    c.vocab_size = f.integer("vocab_size", 1, kMaxDim);
    c.hidden_size = f.integer("hidden_size", 1, kMaxDim);
    c.num_hidden_layers = f.integer("num_hidden_layers", 1, kMaxLayers);
    c.num_nextn_predict_layers = f.integer_or("num_nextn_predict_layers", 0, 0, kMaxLayers);
    c.max_position_embeddings = f.integer("max_position_embeddings", 1, kMaxPositions);
    c.rms_norm_eps = f.number_or("rms_norm_eps", 1e-6, kTiny, 1.0);
    c.tie_word_embeddings = f.boolean_or("tie_word_embeddings", false);
    expect_text(f, "hidden_act", "silu");
}

void read_attention(const JsonFields& f, ModelConfig& c) {
    c.num_attention_heads = f.integer("num_attention_heads", 1, kMaxHeads);
    const int64_t heads = c.num_attention_heads;
    if (f.integer_or("num_key_value_heads", heads, 1, kMaxHeads) != heads)
        f.fail("num_key_value_heads", std::to_string(heads) + " (num_attention_heads)");
    c.q_lora_rank = f.integer("q_lora_rank", 1, kMaxDim);
    c.kv_lora_rank = fixed_size(f, "kv_lora_rank", attention::kLatentDim);
    c.qk_nope_head_dim = fixed_size(f, "qk_nope_head_dim", attention::kNopeDim);
    c.qk_rope_head_dim = fixed_size(f, "qk_rope_head_dim", attention::kRopeDim);
    c.v_head_dim = fixed_size(f, "v_head_dim", attention::kValueDim);
    const int64_t qk_head_dim = c.qk_nope_head_dim + c.qk_rope_head_dim;
    if (f.integer_or("qk_head_dim", qk_head_dim, 1, kMaxDim) != qk_head_dim)
        f.fail("qk_head_dim", std::to_string(qk_head_dim) + " (qk_nope + qk_rope)");
    expect_flag(f, "attention_bias", false);
    expect_flag(f, "rope_interleave", true);
}

void read_indexer(const JsonFields& f, ModelConfig& c) {
    c.index_n_heads = f.integer("index_n_heads", 1, kMaxHeads);
    c.index_head_dim = fixed_size(f, "index_head_dim", indexer::kHeadDim);
    c.index_topk = f.integer("index_topk", 1, kMaxDim);
    c.indexer_rope_interleave = f.boolean_or("indexer_rope_interleave", false);
    for (const std::string& type : f.texts("indexer_types"))
        if (type != "full")
            f.fail(ErrorCode::kUnsupported, "indexer_types",
                   "\"full\" for every layer, found " + quoted(type));
}

bool has_layer(const ModelConfig& c, bool moe) {
    for (int64_t l = 0; l < c.num_hidden_layers + c.num_nextn_predict_layers; ++l)
        if (is_moe_layer(c, l) == moe) return true;
    return false;
}

void read_groups(const JsonFields& f, ModelConfig& c) {
    c.n_group = f.integer_or("n_group", 1, 1, c.n_routed_experts);
    c.topk_group = f.integer_or("topk_group", 1, 1, c.n_group);
    if (c.n_routed_experts % c.n_group != 0)
        f.fail("n_group",
               "a divisor of n_routed_experts (" + std::to_string(c.n_routed_experts) + ")");
    const int64_t group = c.n_routed_experts / c.n_group;
    if (c.n_group > 1 && group < 2)
        f.fail("n_group", "groups of at least 2 experts (a group's score is that of its best 2)");
    c.num_experts_per_tok = f.integer("num_experts_per_tok", 1, kMaxExperts);
    if (c.num_experts_per_tok > c.topk_group * group)
        f.fail("num_experts_per_tok", "at most " + std::to_string(c.topk_group * group) +
                                          " (the experts of topk_group groups)");
}

void read_feed_forward(const JsonFields& f, ModelConfig& c) {
    c.n_routed_experts = f.integer_or("n_routed_experts", 0, 0, kMaxExperts);
    c.first_k_dense_replace = f.integer_or("first_k_dense_replace", 0, 0, kMaxLayers);
    c.moe_layer_freq = f.integer_or("moe_layer_freq", 1, 1, kMaxLayers);
    expect_text(f, "scoring_func", "sigmoid");
    expect_text(f, "topk_method", "noaux_tc");
    c.intermediate_size = has_layer(c, false) ? f.integer("intermediate_size", 1, kMaxDim)
                                              : f.integer_or("intermediate_size", 0, 0, kMaxDim);
    if (c.n_routed_experts == 0) return;
    c.moe_intermediate_size = f.integer("moe_intermediate_size", 1, kMaxDim);
    c.n_shared_experts = f.integer_or("n_shared_experts", 0, 0, 1024);
    c.norm_topk_prob = f.boolean_or("norm_topk_prob", true);
    c.routed_scaling_factor = f.number_or("routed_scaling_factor", 1.0, kTiny, kHuge);
    read_groups(f, c);
}

// YaRN scales cos and sin by a quotient of its two mscales, which is 1 where they are equal (as in
// all published models); anything else is not implemented.
void read_yarn(const JsonFields& rope, ModelConfig& c) {
    c.rope_factor = rope.number("factor", 1.0, 1e6);
    c.rope_beta_fast = rope.number_or("beta_fast", 32.0, kTiny, 1e6);
    c.rope_beta_slow = rope.number_or("beta_slow", 1.0, kTiny, 1e6);
    c.rope_mscale_all_dim = rope.number_or("mscale_all_dim", 0.0, 0.0, 1e3);
    c.rope_original_max_position_embeddings =
        rope.integer("original_max_position_embeddings", 1, kMaxPositions);
    if (c.rope_factor == 1.0) return;
    const double mscale = rope.number_or("mscale", 0.0, 0.0, 1e3);
    if (mscale != c.rope_mscale_all_dim || mscale == 0.0)
        rope.fail(
            ErrorCode::kUnsupported, "mscale",
            "the value of mscale_all_dim (" + std::to_string(c.rope_mscale_all_dim) + "), not 0");
    if (rope.has("attention_factor"))
        rope.fail(ErrorCode::kUnsupported, "attention_factor", "none");
    expect_flag(rope, "truncate", true);
}

// rope_parameters, or rope_scaling beside rope_theta.
void read_rope(const JsonFields& f, ModelConfig& c) {
    c.rope_theta = f.number_or("rope_theta", 10000.0, 1.0 + 1e-9, kHuge);
    const char* key = f.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (!f.has(key)) return;
    const JsonFields rope = f.object(key);
    c.rope_theta = rope.number_or("rope_theta", c.rope_theta, 1.0 + 1e-9, kHuge);
    const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
    const std::string type = rope.text_or(type_key, "");
    if (type.empty()) rope.fail("rope_type", "\"yarn\" or \"default\"");
    if (type == "default") return;
    if (type != "yarn") rope.fail(ErrorCode::kUnsupported, type_key, "\"yarn\" or \"default\"");
    read_yarn(rope, c);
}

void read_quantization(const JsonFields& f, ModelConfig& c) {
    if (!f.has("quantization_config")) return;
    const JsonFields q = f.object("quantization_config");
    if (!q.has("quant_method")) q.fail("quant_method", "\"fp8\"");
    expect_text(q, "quant_method", "fp8");
    expect_text(q, "fmt", "e4m3");
    expect_text(q, "activation_scheme", "dynamic");
    const std::vector<int64_t> block = {gemm::kScaleBlock, gemm::kScaleBlock};
    if (q.integers("weight_block_size", 1, kMaxDim) != block)
        q.fail(ErrorCode::kUnsupported, "weight_block_size", describe(Json(block)));
    expect_text(q, "scale_fmt", "ue8m0");
    c.quant_method = "fp8";
    c.ue8m0_scales = q.has("scale_fmt");
}

void read_token_ids(const JsonFields& f, ModelConfig& c) {
    const int64_t last = c.vocab_size - 1;
    c.bos_token_id = static_cast<int32_t>(f.integer_or("bos_token_id", c.bos_token_id, 0, last));
    if (!f.has("eos_token_id")) return;
    c.eos_token_ids.clear();
    for (const int64_t id : f.integers("eos_token_id", 0, last))
        c.eos_token_ids.push_back(static_cast<int32_t>(id));
}

void read_generation_config(const JsonFields& f, ModelConfig& c) {
    read_token_ids(f, c);
    c.do_sample = f.boolean_or("do_sample", false);
    c.temperature = f.number_or("temperature", 1.0, 0.0, kHuge);
    c.top_p = f.number_or("top_p", 1.0, kTiny, 1.0);
    c.top_k = f.integer_or("top_k", 0, 0, kMaxDim);
    c.repetition_penalty = f.number_or("repetition_penalty", 1.0, kTiny, kHuge);
}

}  // namespace

bool is_moe_layer(const ModelConfig& config, int64_t layer) {
    return config.n_routed_experts > 0 && layer >= config.first_k_dense_replace &&
           layer % config.moe_layer_freq == 0;
}

ModelConfig read_config(const fs::path& model) {
    std::error_code ignored;
    if (!fs::is_directory(model, ignored))
        throw_error(ErrorCode::kNotFound, model.string(), ": no such model folder");
    const fs::path path = model / "config.json";
    if (!has_entry(path))
        throw_error(ErrorCode::kNotFound, model.string(),
                    ": not a checkpoint folder, it has no config.json");

    ModelConfig c;
    const Json json = read_json_file(path);
    const JsonFields f(json, path.string());
    read_architecture(f, c);
    read_sizes(f, c);
    read_attention(f, c);
    read_indexer(f, c);
    read_feed_forward(f, c);
    read_rope(f, c);
    read_quantization(f, c);
    read_token_ids(f, c);

    const fs::path generation_path = model / "generation_config.json";
    if (has_entry(generation_path)) {
        const Json generation = read_json_file(generation_path);
        read_generation_config(JsonFields(generation, generation_path.string()), c);
    }
    return c;
}

}  // namespace dsa
