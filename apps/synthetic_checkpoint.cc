// Random weights in the HuggingFace layout, for speed alone: activations stay O(1), text is noise.

#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "dsa/error.h"
#include "model_preset.h"

namespace dsa::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

enum class Kind { kFp8, kBf16, kF32 };

struct SyntheticTensor {
    std::string name;
    Kind kind;
    int64_t rows, cols;  // cols 0: a vector
    float mean, sigma;   // kFp8: sigma of codes; the scale is its own tensor
};

int64_t bytes_of(const SyntheticTensor& t) {
    const int64_t elements = t.rows * std::max<int64_t>(t.cols, 1);
    return elements * (t.kind == Kind::kFp8 ? 1 : t.kind == Kind::kBf16 ? 2 : 4);
}

class TensorList {
  public:
    explicit TensorList(const Json& config) : config_(config) {}

    std::vector<SyntheticTensor> build() {
        const int64_t hidden = get("hidden_size");
        const int64_t layers = get("num_hidden_layers");
        tensors_.push_back(
            {"model.embed_tokens.weight", Kind::kBf16, get("vocab_size"), hidden, 0.0F, 1.0F});
        for (int64_t l = 0; l < layers; ++l) layer(l);
        norm("model.norm.weight", hidden);
        linear("lm_head.weight", get("vocab_size"), hidden);
        return std::move(tensors_);
    }

  private:
    int64_t get(const char* key) const {
        if (!config_.contains(key) || !config_[key].is_number_integer() || config_[key] < 0)
            throw_error(ErrorCode::kInvalidModel, "preset: ", key,
                        " is missing or no whole number >= 0");
        return config_[key].get<int64_t>();
    }

    void linear(const std::string& name, int64_t n, int64_t k) {
        constexpr float kCodes = 32.0F;  // sigma; far from both ends of the format
        tensors_.push_back({name, Kind::kFp8, n, k, 0.0F, kCodes});
        const float scale = 1.0F / (kCodes * std::sqrt(static_cast<float>(k)));
        tensors_.push_back({name + "_scale_inv", Kind::kF32, (n + 127) / 128, (k + 127) / 128,
                            std::exp2(std::round(std::log2(scale))), 0.0F});
    }
    void norm(const std::string& name, int64_t n) {
        tensors_.push_back({name, Kind::kF32, n, 0, 1.0F, 0.0F});
    }
    void mlp(const std::string& p, int64_t intermediate) {
        const int64_t hidden = get("hidden_size");
        linear(p + "gate_proj.weight", intermediate, hidden);
        linear(p + "up_proj.weight", intermediate, hidden);
        linear(p + "down_proj.weight", hidden, intermediate);
    }

    void layer(int64_t index) {
        const std::string p = "model.layers." + std::to_string(index) + ".";
        norm(p + "input_layernorm.weight", get("hidden_size"));
        attention(p + "self_attn.");
        norm(p + "post_attention_layernorm.weight", get("hidden_size"));
        const bool moe =
            index >= get("first_k_dense_replace") && index % get("moe_layer_freq") == 0;
        if (!moe) return mlp(p + "mlp.", get("intermediate_size"));
        const int64_t experts = get("n_routed_experts");
        const int64_t intermediate = get("moe_intermediate_size");
        const int64_t hidden = get("hidden_size");
        tensors_.push_back({p + "mlp.gate.weight", Kind::kBf16, experts, hidden, 0.0F,
                            1.0F / std::sqrt(static_cast<float>(hidden))});
        tensors_.push_back(
            {p + "mlp.gate.e_score_correction_bias", Kind::kF32, experts, 0, 0.0F, 0.01F});
        for (int64_t e = 0; e < experts; ++e)
            mlp(p + "mlp.experts." + std::to_string(e) + ".", intermediate);
        if (get("n_shared_experts") > 0)
            mlp(p + "mlp.shared_experts.", get("n_shared_experts") * intermediate);
    }

    void attention(const std::string& p) {
        const int64_t hidden = get("hidden_size");
        const int64_t heads = get("num_attention_heads");
        const int64_t q_rank = get("q_lora_rank");
        const int64_t kv_rank = get("kv_lora_rank");
        const int64_t nope = get("qk_nope_head_dim");
        const int64_t rope = get("qk_rope_head_dim");
        const int64_t value = get("v_head_dim");
        linear(p + "q_a_proj.weight", q_rank, hidden);
        norm(p + "q_a_layernorm.weight", q_rank);
        linear(p + "q_b_proj.weight", heads * (nope + rope), q_rank);
        linear(p + "kv_a_proj_with_mqa.weight", kv_rank + rope, hidden);
        norm(p + "kv_a_layernorm.weight", kv_rank);
        linear(p + "kv_b_proj.weight", heads * (nope + value), kv_rank);
        linear(p + "o_proj.weight", hidden, heads * value);
        const int64_t index_dim = get("index_head_dim");
        linear(p + "indexer.wq_b.weight", get("index_n_heads") * index_dim, q_rank);
        linear(p + "indexer.wk.weight", index_dim, hidden);
        tensors_.push_back({p + "indexer.weights_proj.weight", Kind::kBf16, get("index_n_heads"),
                            hidden, 0.0F, 1.0F / std::sqrt(static_cast<float>(hidden))});
        norm(p + "indexer.k_norm.weight", index_dim);
        tensors_.push_back({p + "indexer.k_norm.bias", Kind::kF32, index_dim, 0, 0.0F, 0.0F});
    }

    const Json& config_;
    std::vector<SyntheticTensor> tensors_;
};

// Normal values with sigma 1, from a table: fast, and good enough for speed.
class NormalTable {
  public:
    explicit NormalTable(uint64_t seed) : random_(seed) {
        std::normal_distribution<float> normal;
        for (float& x : values_) x = normal(random_);
    }
    float next() { return values_[random_() % values_.size()]; }
    const std::array<float, 4096>& values() const { return values_; }
    uint64_t bits() { return random_(); }

  private:
    std::mt19937_64 random_;
    std::array<float, 4096> values_{};
};

uint16_t bf16_bits(float x) {
    uint32_t u = 0;
    std::memcpy(&u, &x, 4);
    return static_cast<uint16_t>((u + 0x8000U) >> 16);
}

// The nearest e4m3 code of a value of moderate size.
uint8_t e4m3_code(float x) {
    uint8_t best = 0;
    float distance = std::fabs(x);
    for (unsigned code = 1; code < 0x7f; ++code) {
        const unsigned exponent = code >> 3;
        const float value = exponent == 0 ? std::ldexp(static_cast<float>(code), -9)
                                          : std::ldexp(static_cast<float>(8U + (code & 7U)),
                                                       static_cast<int>(exponent) - 10);
        if (std::fabs(std::fabs(x) - value) < distance) {
            distance = std::fabs(std::fabs(x) - value);
            best = static_cast<uint8_t>(code);
        }
    }
    return static_cast<uint8_t>(best | (x < 0 ? 0x80 : 0));
}

void fill(const SyntheticTensor& t, NormalTable& normal, std::vector<uint8_t>& bytes) {
    bytes.resize(static_cast<size_t>(bytes_of(t)));
    if (t.kind == Kind::kFp8) {
        std::array<uint8_t, 4096> codes;
        for (size_t i = 0; i < codes.size(); ++i)
            codes[i] = e4m3_code(t.sigma * normal.values()[i]);
        for (size_t i = 0; i < bytes.size();) {
            uint64_t bits = normal.bits();
            for (int j = 0; j < 5 && i < bytes.size(); ++j, bits >>= 12)
                bytes[i++] = codes[bits & 4095U];
        }
        return;
    }
    const size_t size = t.kind == Kind::kBf16 ? 2 : 4;
    for (size_t i = 0; i < bytes.size(); i += size) {
        const float x = t.mean + (t.sigma > 0 ? t.sigma * normal.next() : 0.0F);
        const uint16_t half = bf16_bits(x);
        std::memcpy(bytes.data() + i, size == 2 ? static_cast<const void*>(&half) : &x, size);
    }
}

std::string header_of(const std::vector<SyntheticTensor>& tensors) {
    Json header = Json::object();
    int64_t offset = 0;
    for (const SyntheticTensor& t : tensors) {
        const char* dtype = t.kind == Kind::kFp8    ? "F8_E4M3"
                            : t.kind == Kind::kBf16 ? "BF16"
                                                    : "F32";
        const Json shape = t.cols > 0 ? Json{t.rows, t.cols} : Json{t.rows};
        header[t.name] = {
            {"dtype", dtype}, {"shape", shape}, {"data_offsets", {offset, offset + bytes_of(t)}}};
        offset += bytes_of(t);
    }
    std::string text = header.dump();
    text.resize((text.size() + 63) / 64 * 64 + 56, ' ');  // data starts at a multiple of 64
    return text;
}

void check_written(const std::ofstream& file, const fs::path& path) {
    if (!file)
        throw_error(ErrorCode::kNotFound, path.string(),
                    ": can't be written (no room on the disk?)");
}

}  // namespace

void write_synthetic_checkpoint(const Json& config, const fs::path& folder, uint64_t seed) {
    const std::vector<SyntheticTensor> tensors = TensorList(config).build();
    std::error_code error;
    fs::create_directories(folder, error);
    if (error || !fs::is_directory(folder) || !fs::is_empty(folder))
        throw_error(ErrorCode::kInvalidArgument, folder.string(),
                    ": expected a new or empty folder");
    std::ofstream config_file(folder / "config.json");
    config_file << config.dump(1) << "\n";
    config_file.close();
    check_written(config_file, folder / "config.json");

    const fs::path path = folder / "model.safetensors";
    std::ofstream file(path, std::ios::binary);
    const std::string header = header_of(tensors);
    const auto length = static_cast<uint64_t>(header.size());
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file.write(header.data(), static_cast<std::streamsize>(header.size()));
    NormalTable normal(seed);
    std::vector<uint8_t> bytes;
    for (const SyntheticTensor& t : tensors) {
        fill(t, normal, bytes);
        file.write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
        check_written(file, path);
    }
    file.close();
    check_written(file, path);
}

}  // namespace dsa::app
