#include "testing/checkpoint_builder.h"

#include <regex.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "base/dtypes.h"
#include "gemm/weight.h"

namespace dsa::testing {

namespace {

using Json = nlohmann::json;

constexpr int64_t kRopeDim = 64;
constexpr int64_t kHeadDim = 128;  // nope, value and index heads
constexpr int64_t kLatentDim = 512;

// Numbers that are the same on every machine (splitmix64), close to normally distributed: the sum
// of four uniform ones.
class Random {
  public:
    Random(uint64_t seed, const std::string& name) : state_(seed * 0x9e3779b97f4a7c15U) {
        for (const char ch : name)
            state_ = (state_ ^ static_cast<uint8_t>(ch)) * 0x100000001b3U;  // FNV-1a
    }

    float normal(float mean, float deviation) {
        uint64_t z = state_ += 0x9e3779b97f4a7c15U;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
        z ^= z >> 31;
        const uint64_t sum = (z & 0xffff) + ((z >> 16) & 0xffff) + ((z >> 32) & 0xffff) + (z >> 48);
        const float unit = (static_cast<float>(sum) / 65536.0F - 2.0F) * 1.7320508F;
        return mean + deviation * unit;
    }

  private:
    uint64_t state_;
};

std::vector<uint8_t> bf16_bytes(const std::vector<float>& values) {
    std::vector<uint8_t> bytes(values.size() * 2);
    for (size_t i = 0; i < values.size(); ++i) {
        const bf16 v = to_bf16(values[i]);
        std::memcpy(&bytes[i * 2], &v, 2);
    }
    return bytes;
}

std::vector<uint8_t> f32_bytes(const std::vector<float>& values) {
    std::vector<uint8_t> bytes(values.size() * 4);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

// A POSIX extended regular expression; an empty one matches nothing.
class Pattern {
  public:
    explicit Pattern(const std::string& text) : empty_(text.empty()) {
        if (!empty_ && ::regcomp(&regex_, text.c_str(), REG_EXTENDED | REG_NOSUB) != 0)
            throw std::runtime_error("not a regular expression: " + text);
    }
    ~Pattern() {
        if (!empty_) ::regfree(&regex_);
    }
    Pattern(const Pattern&) = delete;
    Pattern& operator=(const Pattern&) = delete;

    bool matches(const std::string& name) const {
        return !empty_ && ::regexec(&regex_, name.c_str(), 0, nullptr, 0) == 0;
    }

  private:
    bool empty_;
    regex_t regex_ = {};
};

// All tensors of a model, in the order of its layers.
class TensorMaker {
  public:
    explicit TensorMaker(const CheckpointSpec& spec)
        : spec_(spec), bf16_linears_(spec.bf16_linears), fp8_linears_(spec.fp8_linears) {}

    std::vector<RawTensor> make() {
        const CheckpointSpec& s = spec_;
        embedding("model.embed_tokens.weight");
        for (int64_t l = 0; l < s.num_hidden_layers; ++l) layer(l);
        norm("model.norm.weight", s.hidden_size);
        if (!s.tie_word_embeddings) head("lm_head.weight");
        for (int64_t i = 0; i < s.num_nextn_predict_layers; ++i) mtp(s.num_hidden_layers + i);
        return std::move(tensors_);
    }

  private:
    std::vector<float> normals(const std::string& name, int64_t n, float mean, float deviation) {
        Random random(spec_.seed, name);
        std::vector<float> values(static_cast<size_t>(n));
        for (float& v : values) v = random.normal(mean, deviation);
        return values;
    }

    void vector(const std::string& name, int64_t n, float mean, float deviation, bool f32) {
        std::vector<float> values = normals(name, n, mean, deviation);
        for (float& v : values) v = round_bf16(v);
        tensors_.push_back(
            {name, f32 ? "F32" : "BF16", {n}, f32 ? f32_bytes(values) : bf16_bytes(values)});
    }

    void norm(const std::string& name, int64_t n) { vector(name, n, 1.0F, 0.1F, spec_.norms_f32); }

    void embedding(const std::string& name) {
        const int64_t n = spec_.vocab_size;
        const int64_t k = spec_.hidden_size;
        tensors_.push_back({name, "BF16", {n, k}, bf16_bytes(normals(name, n * k, 0.0F, 1.0F))});
    }

    // Logits have a deviation of about 3, so that probabilities are neither flat nor all in one.
    void head(const std::string& name) {
        weight(name, spec_.vocab_size, spec_.hidden_size, 3.0F, !spec_.bf16_lm_head);
    }

    void linear(const std::string& name, int64_t n, int64_t k, bool fp8 = true) {
        weight(name + ".weight", n, k, 1.0F, fp8);
    }

    void weight(const std::string& name, int64_t n, int64_t k, float gain, bool fp8) {
        if (bf16_linears_.matches(name)) fp8 = false;
        if (fp8_linears_.matches(name)) fp8 = true;
        const auto values = normals(name, n * k, 0.0F, gain / std::sqrt(static_cast<float>(k)));
        if (fp8) {
            fp8_weight(name, n, k, values);
        } else {
            tensors_.push_back({name, "BF16", {n, k}, bf16_bytes(values)});
        }
    }

    void fp8_weight(const std::string& name, int64_t n, int64_t k,
                    const std::vector<float>& values);

    void mlp(const std::string& p, int64_t intermediate) {
        linear(p + "gate_proj", intermediate, spec_.hidden_size);
        linear(p + "up_proj", intermediate, spec_.hidden_size);
        linear(p + "down_proj", spec_.hidden_size, intermediate);
    }

    void attention(const std::string& p) {
        const CheckpointSpec& s = spec_;
        const int64_t heads = s.num_attention_heads;
        linear(p + "q_a_proj", s.q_lora_rank, s.hidden_size);
        norm(p + "q_a_layernorm.weight", s.q_lora_rank);
        linear(p + "q_b_proj", heads * (kHeadDim + kRopeDim), s.q_lora_rank);
        linear(p + "kv_a_proj_with_mqa", kLatentDim + kRopeDim, s.hidden_size);
        norm(p + "kv_a_layernorm.weight", kLatentDim);
        linear(p + "kv_b_proj", heads * 2 * kHeadDim, kLatentDim);
        linear(p + "o_proj", s.hidden_size, heads * kHeadDim);
        linear(p + "indexer.wq_b", s.index_n_heads * kHeadDim, s.q_lora_rank);
        linear(p + "indexer.wk", kHeadDim, s.hidden_size);
        linear(p + "indexer.weights_proj", s.index_n_heads, s.hidden_size, false);
        vector(p + "indexer.k_norm.weight", kHeadDim, 1.0F, 0.1F, !s.k_norm_bf16);
        vector(p + "indexer.k_norm.bias", kHeadDim, 0.0F, 0.1F, !s.k_norm_bf16);
    }

    void layer(int64_t l) {
        const CheckpointSpec& s = spec_;
        const std::string p = "model.layers." + std::to_string(l) + ".";
        norm(p + "input_layernorm.weight", s.hidden_size);
        attention(p + "self_attn.");
        norm(p + "post_attention_layernorm.weight", s.hidden_size);
        const bool is_moe =
            s.n_routed_experts > 0 && l >= s.first_k_dense_replace && l % s.moe_layer_freq == 0;
        if (!is_moe) {
            mlp(p + "mlp.", s.intermediate_size);
            return;
        }
        linear(p + "mlp.gate", s.n_routed_experts, s.hidden_size, false);
        vector(p + "mlp.gate.e_score_correction_bias", s.n_routed_experts, 0.0F, 0.1F, true);
        for (int64_t e = 0; e < s.n_routed_experts; ++e)
            mlp(p + "mlp.experts." + std::to_string(e) + ".", s.moe_intermediate_size);
        if (s.n_shared_experts > 0)
            mlp(p + "mlp.shared_experts.", s.n_shared_experts * s.moe_intermediate_size);
    }

    void mtp(int64_t l) {
        const std::string p = "model.layers." + std::to_string(l) + ".";
        norm(p + "enorm.weight", spec_.hidden_size);
        norm(p + "hnorm.weight", spec_.hidden_size);
        linear(p + "eh_proj", spec_.hidden_size, 2 * spec_.hidden_size, false);
        layer(l);
        norm(p + "shared_head.norm.weight", spec_.hidden_size);
        if (!spec_.mtp_own_embeddings) return;
        embedding(p + "embed_tokens.weight");
        head(p + "shared_head.head.weight");
    }

    const CheckpointSpec& spec_;
    Pattern bf16_linears_;
    Pattern fp8_linears_;
    std::vector<RawTensor> tensors_;
};

void TensorMaker::fp8_weight(const std::string& name, int64_t n, int64_t k,
                             const std::vector<float>& values) {
    const int64_t rows = gemm::num_blocks(n);
    const int64_t cols = gemm::num_blocks(k);
    std::vector<float> scales(static_cast<size_t>(rows * cols), 0.0F);
    const auto for_each = [&](const auto& visit) {  // (index of the value, its block's scale)
        for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < k; ++j)
                visit(static_cast<size_t>(i * k + j),
                      scales[static_cast<size_t>(i / gemm::kScaleBlock * cols +
                                                 j / gemm::kScaleBlock)]);
    };
    for_each([&](size_t i, float& s) { s = std::max(s, std::fabs(values[i])); });
    for (float& s : scales) {
        s /= kE4m3Max;
        if (!spec_.plain_scales) s = std::exp2(std::ceil(std::log2(s)));
    }
    std::vector<uint8_t> codes(values.size());
    for_each([&](size_t i, float s) { codes[i] = to_e4m3(values[i] / s).bits; });
    tensors_.push_back({name, "F8_E4M3", {n, k}, std::move(codes)});
    tensors_.push_back({name + "_scale_inv", "F32", {rows, cols}, f32_bytes(scales)});
}

bool is_scale(const RawTensor& t) {
    return t.name.ends_with("_scale_inv");
}

std::string shard_name(size_t shard, size_t shards) {
    char name[64];
    std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
    return name;
}

}  // namespace

TempDir::TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "dsa-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr)
        throw std::runtime_error("cannot make a folder like " + pattern);
    path_ = pattern;
}

TempDir::~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<RawTensor>& tensors,
                       bool misalign) {
    Json header = {{"__metadata__", {{"format", "pt"}}}};
    size_t offset = 0;
    for (const RawTensor& t : tensors) {
        header[t.name] = {{"dtype", t.dtype},
                          {"shape", t.shape},
                          {"data_offsets", {offset, offset + t.bytes.size()}}};
        offset += t.bytes.size();
    }
    std::string text = header.dump();
    while (text.size() % 8 != (misalign ? 3 : 0)) text += ' ';
    const uint64_t length = text.size();
    std::ofstream out(path, std::ios::binary);
    for (int i = 0; i < 8; ++i) out.put(static_cast<char>(length >> (8 * i)));
    out << text;
    for (const RawTensor& t : tensors)
        out.write(reinterpret_cast<const char*>(t.bytes.data()),
                  static_cast<std::streamsize>(t.bytes.size()));
    if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

void write_json(const std::filesystem::path& path, const Json& json) {
    std::ofstream out(path);
    out << json.dump(1) << '\n';
    if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

Json make_config(const CheckpointSpec& s) {
    Json c = {{"architectures", Json::array({"DeepseekV32ForCausalLM"})},
              {"model_type", "deepseek_v32"},
              {"attention_bias", false},
              {"hidden_act", "silu"},
              {"scoring_func", "sigmoid"},
              {"topk_method", "noaux_tc"},
              {"norm_topk_prob", true},
              {"bos_token_id", 0},
              {"eos_token_id", 1},
              {"kv_lora_rank", kLatentDim},
              {"qk_nope_head_dim", kHeadDim},
              {"qk_rope_head_dim", kRopeDim},
              {"v_head_dim", kHeadDim},
              {"index_head_dim", kHeadDim},
              {"vocab_size", s.vocab_size},
              {"hidden_size", s.hidden_size},
              {"num_hidden_layers", s.num_hidden_layers},
              {"num_nextn_predict_layers", s.num_nextn_predict_layers},
              {"num_attention_heads", s.num_attention_heads},
              {"num_key_value_heads", s.num_attention_heads},
              {"q_lora_rank", s.q_lora_rank},
              {"index_n_heads", s.index_n_heads},
              {"index_topk", s.index_topk},
              {"intermediate_size", s.intermediate_size},
              {"moe_intermediate_size", s.moe_intermediate_size},
              {"n_routed_experts", s.n_routed_experts},
              {"n_shared_experts", s.n_shared_experts},
              {"num_experts_per_tok", s.num_experts_per_tok},
              {"n_group", s.n_group},
              {"topk_group", s.topk_group},
              {"first_k_dense_replace", s.first_k_dense_replace},
              {"moe_layer_freq", s.moe_layer_freq},
              {"max_position_embeddings", s.max_position_embeddings},
              {"routed_scaling_factor", s.routed_scaling_factor},
              {"rms_norm_eps", s.rms_norm_eps},
              {"rope_theta", s.rope_theta},
              {"rope_scaling", nullptr},
              {"tie_word_embeddings", s.tie_word_embeddings}};
    c["quantization_config"] = {{"quant_method", "fp8"},
                                {"fmt", "e4m3"},
                                {"activation_scheme", "dynamic"},
                                {"weight_block_size", {gemm::kScaleBlock, gemm::kScaleBlock}}};
    if (s.ue8m0) c["quantization_config"]["scale_fmt"] = "ue8m0";
    if (s.indexer_rope_interleave) c["indexer_rope_interleave"] = true;
    if (s.rope_factor != 1.0)
        c["rope_scaling"] = {
            {"type", "yarn"},
            {"factor", s.rope_factor},
            {"beta_fast", 32},
            {"beta_slow", 1},
            {"mscale", 1.0},
            {"mscale_all_dim", 1.0},
            {"original_max_position_embeddings", s.rope_original_max_position_embeddings}};
    return c;
}

std::vector<RawTensor> make_tensors(const CheckpointSpec& spec) {
    return TensorMaker(spec).make();
}

void write_checkpoint(const std::filesystem::path& dir, const CheckpointSpec& spec,
                      const Json& config, const std::vector<RawTensor>& tensors) {
    std::filesystem::create_directories(dir);
    write_json(dir / "config.json", config);
    if (spec.shards <= 1) {
        write_safetensors(dir / "model.safetensors", tensors, spec.misalign);
        return;
    }
    const auto shards = static_cast<size_t>(spec.shards);
    std::vector<std::vector<RawTensor>> files(shards);
    Json weight_map = Json::object();
    size_t shard = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
        if (!is_scale(tensors[i])) shard = i * shards / tensors.size();
        const size_t place =
            is_scale(tensors[i]) && spec.scales_in_other_shard ? (shard + 1) % shards : shard;
        files[place].push_back(tensors[i]);
        weight_map[tensors[i].name] = shard_name(place, shards);
    }
    for (size_t i = 0; i < shards; ++i)
        write_safetensors(dir / shard_name(i, shards), files[i], spec.misalign);
    write_json(dir / "model.safetensors.index.json",
               {{"metadata", Json::object()}, {"weight_map", weight_map}});
}

void write_checkpoint(const std::filesystem::path& dir, const CheckpointSpec& spec) {
    write_checkpoint(dir, spec, make_config(spec), make_tensors(spec));
}

}  // namespace dsa::testing
