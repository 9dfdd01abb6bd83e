#include "engine/checkpoint_binder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/memory_info.h"
#include "base/printable.h"
#include "base/tensor_view.h"
#include "dsa/error.h"

namespace dsa {

namespace {

constexpr size_t kMaxUnusedWarnings = 20;
constexpr const char* kLayerPrefix = "model.layers.";

std::string layer_prefix(int64_t layer) {
    return kLayerPrefix + std::to_string(layer) + ".";
}

// The number in "model.layers.NUMBER.rest"; -1 for another name. Digits beyond int64 saturate.
int64_t layer_number(const std::string& name) {
    if (name.rfind(kLayerPrefix, 0) != 0) return -1;
    size_t i = std::strlen(kLayerPrefix);
    const size_t begin = i;
    int64_t number = 0;
    for (; i < name.size() && name[i] >= '0' && name[i] <= '9'; ++i)
        number = std::min<int64_t>(number * 10 + (name[i] - '0'), INT64_MAX / 16);
    return i > begin && i < name.size() && name[i] == '.' ? number : -1;
}

bool aligned_for(const void* p, DType dtype) {
    return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(size_of(dtype)) == 0;
}

}  // namespace

CheckpointBinder::CheckpointBinder(Checkpoint& checkpoint, TensorTable& tensors)
    : checkpoint_(checkpoint), config_(checkpoint.info_.config), tensors_(tensors) {}

void CheckpointBinder::bind() {
    check_layer_numbers();
    with_mtp_ = config_.num_nextn_predict_layers > 0 && has_mtp_tensors();
    walk();
    finish_info();
    warn_unused();
    if (const int64_t available = available_memory(); copy_bytes_ > available)
        throw_error(ErrorCode::kOutOfMemory, checkpoint_.info_.path, ": needs ", copy_bytes_,
                    " bytes for copies of tensors that are not aligned, or widened, but only ",
                    available, " are available");
    checkpoint_.copies_ = AlignedBuffer(copy_bytes_);
    checking_ = false;
    walk();
}

void CheckpointBinder::check_layer_numbers() const {
    const int64_t limit = config_.num_hidden_layers + config_.num_nextn_predict_layers;
    const auto first = std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& item) {
        return layer_number(item.first) >= limit;
    });
    if (first != tensors_.end())
        wrong(first->first, "belongs to layer " + std::to_string(layer_number(first->first)),
              "fewer than " + std::to_string(limit) + " layers (num_hidden_layers " +
                  std::to_string(config_.num_hidden_layers) + " + num_nextn_predict_layers " +
                  std::to_string(config_.num_nextn_predict_layers) + " of config.json)");
}

bool CheckpointBinder::has_mtp_tensors() const {
    return std::any_of(tensors_.begin(), tensors_.end(), [&](const auto& item) {
        return layer_number(item.first) >= config_.num_hidden_layers;
    });
}

// Vectors grow as tensors are found: a config with absurd counts fails at the first missing tensor.
void CheckpointBinder::walk() {
    const int64_t vocab = config_.vocab_size;
    const int64_t hidden = config_.hidden_size;
    copy_bytes_ = parameters_ = inactive_ = bytes_ = inactive_bytes_ = 0;
    ModelWeights w;
    w.embed_tokens = linear("model.embed_tokens.weight", vocab, hidden, false);
    const int64_t embedding = parameters_;
    const int64_t embedding_bytes = bytes_;
    for (int64_t l = 0; l < config_.num_hidden_layers; ++l) bind_layer(l, w.layers.emplace_back());
    w.norm = vector("model.norm.weight", hidden);
    w.lm_head =
        config_.tie_word_embeddings ? w.embed_tokens : linear("lm_head.weight", vocab, hidden);
    ModelInfo& info = checkpoint_.info_;
    // A looked-up row is not counted, a head that is multiplied with is.
    info.active_parameters =
        parameters_ - inactive_ - (config_.tie_word_embeddings ? 0 : embedding);
    info.active_bytes =
        bytes_ - inactive_bytes_ - (config_.tie_word_embeddings ? 0 : embedding_bytes);
    const int64_t before_mtp = parameters_;
    for (int64_t i = 0; with_mtp_ && i < config_.num_nextn_predict_layers; ++i) {
        MtpWeights& mtp = w.mtp.emplace_back();
        mtp.embed_tokens = w.embed_tokens;
        mtp.shared_head = w.lm_head;
        bind_mtp(config_.num_hidden_layers + i, mtp);
    }
    info.mtp_parameters = parameters_ - before_mtp;
    info.parameters = parameters_;
    info.copied_bytes = copy_bytes_;
    checkpoint_.weights_ = std::move(w);
}

void CheckpointBinder::finish_info() {
    ModelInfo& info = checkpoint_.info_;
    for (auto& [dtype, summary] : summary_) {
        info.weight_bytes += summary.bytes;
        info.tensors.push_back(summary);
    }
    if (config_.num_nextn_predict_layers > 0 && !with_mtp_)
        info.warnings.push_back("config.json has num_nextn_predict_layers " +
                                std::to_string(config_.num_nextn_predict_layers) +
                                ", but there is no tensor " +
                                layer_prefix(config_.num_hidden_layers) + "*: no MTP layer");
}

void CheckpointBinder::warn_unused() {
    std::vector<std::string> unused;
    for (const auto& [name, entry] : tensors_)
        if (!entry.bound) unused.push_back(name);
    auto& warnings = checkpoint_.info_.warnings;
    for (size_t i = 0; i < std::min(unused.size(), kMaxUnusedWarnings); ++i) {
        const std::string& name = unused[i];
        const auto weight = name.size() > 10 && name.ends_with("_scale_inv")
                                ? tensors_.find(name.substr(0, name.size() - 10))
                                : tensors_.end();
        warnings.push_back("tensor " + printable(name) + " is not used" +
                           (weight != tensors_.end() && weight->second.bound
                                ? ": " + weight->first + " is " + weight->second.tensor->dtype
                                : ""));
    }
    if (unused.size() > kMaxUnusedWarnings)
        warnings.push_back("and " + std::to_string(unused.size() - kMaxUnusedWarnings) +
                           " more tensors that are not used");
}

void CheckpointBinder::bind_mtp(int64_t layer, MtpWeights& mtp) {
    const std::string p = layer_prefix(layer);
    const int64_t hidden = config_.hidden_size;
    mtp.enorm = vector(p + "enorm.weight", hidden);
    mtp.hnorm = vector(p + "hnorm.weight", hidden);
    mtp.eh_proj = linear(p + "eh_proj.weight", hidden, 2 * hidden);
    bind_layer(layer, mtp.layer);
    mtp.shared_head_norm = vector(p + "shared_head.norm.weight", hidden);
    const std::string embed = p + "embed_tokens.weight";
    const std::string head = p + "shared_head.head.weight";
    if (tensors_.count(embed)) mtp.embed_tokens = linear(embed, config_.vocab_size, hidden, false);
    if (tensors_.count(head)) mtp.shared_head = linear(head, config_.vocab_size, hidden);
}

void CheckpointBinder::bind_layer(int64_t layer, LayerWeights& w) {
    const std::string p = layer_prefix(layer);
    w.input_layernorm = vector(p + "input_layernorm.weight", config_.hidden_size);
    bind_attention(p + "self_attn.", w.self_attn);
    w.post_attention_layernorm = vector(p + "post_attention_layernorm.weight", config_.hidden_size);
    w.is_moe = is_moe_layer(config_, layer);
    if (w.is_moe) {
        bind_moe(p + "mlp.", w.moe);
    } else {
        bind_mlp(p + "mlp.", config_.intermediate_size, w.mlp);
    }
}

void CheckpointBinder::bind_attention(const std::string& p, AttentionWeights& w) {
    const ModelConfig& c = config_;
    const int64_t heads = c.num_attention_heads;
    w.q_a_proj = linear(p + "q_a_proj.weight", c.q_lora_rank, c.hidden_size);
    w.q_a_layernorm = vector(p + "q_a_layernorm.weight", c.q_lora_rank);
    w.q_b_proj = linear(p + "q_b_proj.weight", heads * (c.qk_nope_head_dim + c.qk_rope_head_dim),
                        c.q_lora_rank);
    w.kv_a_proj_with_mqa =
        linear(p + "kv_a_proj_with_mqa.weight", c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size);
    w.kv_a_layernorm = vector(p + "kv_a_layernorm.weight", c.kv_lora_rank);
    w.kv_b_proj =
        linear(p + "kv_b_proj.weight", heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank);
    w.o_proj = linear(p + "o_proj.weight", c.hidden_size, heads * c.v_head_dim);
    bind_indexer(p + "indexer.", w.indexer);
}

void CheckpointBinder::bind_indexer(const std::string& p, IndexerWeights& w) {
    const ModelConfig& c = config_;
    w.wq_b = linear(p + "wq_b.weight", c.index_n_heads * c.index_head_dim, c.q_lora_rank);
    w.wk = linear(p + "wk.weight", c.index_head_dim, c.hidden_size);
    w.weights_proj = linear(p + "weights_proj.weight", c.index_n_heads, c.hidden_size);
    w.k_norm_weight = vector(p + "k_norm.weight", c.index_head_dim);
    w.k_norm_bias = vector(p + "k_norm.bias", c.index_head_dim);
}

void CheckpointBinder::bind_mlp(const std::string& p, int64_t intermediate, MlpWeights& w) {
    w.gate_proj = linear(p + "gate_proj.weight", intermediate, config_.hidden_size);
    w.up_proj = linear(p + "up_proj.weight", intermediate, config_.hidden_size);
    w.down_proj = linear(p + "down_proj.weight", config_.hidden_size, intermediate);
}

void CheckpointBinder::bind_moe(const std::string& p, MoeWeights& w) {
    const int64_t num_experts = config_.n_routed_experts;
    const int64_t intermediate = config_.moe_intermediate_size;
    w.gate = linear(p + "gate.weight", num_experts, config_.hidden_size);
    w.e_score_correction_bias = vector(p + "gate.e_score_correction_bias", num_experts);
    const int64_t before = parameters_;
    const int64_t bytes_before = bytes_;
    for (int64_t e = 0; e < num_experts; ++e)
        bind_mlp(p + "experts." + std::to_string(e) + ".", intermediate, w.experts.emplace_back());
    const int64_t one_expert = (parameters_ - before) / num_experts;
    const int64_t idle = num_experts - config_.num_experts_per_tok;
    inactive_ += one_expert * idle;
    inactive_bytes_ += (bytes_ - bytes_before) / num_experts * idle;
    if (config_.n_shared_experts > 0)
        bind_mlp(p + "shared_experts.", config_.n_shared_experts * intermediate, w.shared_experts);
}

Weight CheckpointBinder::linear(const std::string& name, int64_t n, int64_t k, bool fp8_allowed) {
    const char* dtypes = fp8_allowed ? "BF16 or F8_E4M3" : "BF16";
    const Tensor& t = *take(name, {n, k}, dtypes).tensor;
    parameters_ += n * k;
    Weight w;
    w.n = n;
    w.k = k;
    if (t.dtype == "BF16") {
        w.dtype = DType::kBF16;
    } else if (t.dtype == "F8_E4M3" && fp8_allowed) {
        w.dtype = DType::kE4M3;
        w.scale_inv = scales(name, n, k);
    } else {
        wrong(name, "is " + t.dtype, dtypes);
    }
    w.data = in_place_or_copy(t, w.dtype);
    return w;
}

const float* CheckpointBinder::scales(const std::string& weight_name, int64_t n, int64_t k) {
    const std::string name = weight_name + "_scale_inv";
    const int64_t rows = gemm::num_blocks(n);
    const int64_t cols = gemm::num_blocks(k);
    const Tensor& t = *take(name, {rows, cols}, "F32").tensor;
    if (t.dtype != "F32") wrong(name, "is " + t.dtype, "F32");
    for (int64_t i = 0; checking_ && i < rows * cols; ++i) {
        float scale = 0;
        std::memcpy(&scale, static_cast<const uint8_t*>(t.data) + i * 4, sizeof(scale));
        if (!std::isfinite(scale))
            wrong(name,
                  "has " + std::to_string(scale) + " at [" + std::to_string(i / cols) + ", " +
                      std::to_string(i % cols) + "]",
                  "finite values");
    }
    return static_cast<const float*>(in_place_or_copy(t, DType::kF32));
}

const float* CheckpointBinder::vector(const std::string& name, int64_t n) {
    const char* dtypes = "F32 or BF16";
    const Tensor& t = *take(name, {n}, dtypes).tensor;
    parameters_ += n;
    if (t.dtype == "F32") return static_cast<const float*>(in_place_or_copy(t, DType::kF32));
    if (t.dtype != "BF16") wrong(name, "is " + t.dtype, dtypes);
    auto* copy = reinterpret_cast<float*>(reserve_copy(n * static_cast<int64_t>(sizeof(float))));
    for (int64_t i = 0; copy != nullptr && i < n; ++i) {
        bf16 value;
        std::memcpy(&value, static_cast<const uint8_t*>(t.data) + i * 2, sizeof(value));
        copy[i] = to_float(value);
    }
    return copy;
}

const TensorEntry& CheckpointBinder::take(const std::string& name,
                                          const std::vector<int64_t>& shape, const char* dtypes) {
    const auto it = tensors_.find(name);
    if (it == tensors_.end())
        throw_error(ErrorCode::kInvalidModel, checkpoint_.info_.path, ": tensor ", name,
                    " is missing, expected ", shape_string(shape), " of ", dtypes);
    TensorEntry& entry = it->second;
    const Tensor& t = *entry.tensor;
    if (t.shape != shape)
        wrong(name, "has shape " + shape_string(t.shape), shape_string(shape) + " of " + dtypes);
    bytes_ += t.bytes;
    if (checking_) {
        entry.bound = true;
        TensorSummary& sum = summary_[t.dtype];
        sum.dtype = t.dtype;
        sum.count += 1;
        int64_t numel = 1;
        for (const int64_t d : shape) numel *= d;
        sum.elements += numel;
        sum.bytes += t.bytes;
        checkpoint_.bound_.emplace_back(static_cast<const uint8_t*>(t.data),
                                        static_cast<size_t>(t.bytes));
    }
    return entry;
}

void CheckpointBinder::wrong(const std::string& name, const std::string& found,
                             const std::string& expected) const {
    throw_error(ErrorCode::kInvalidModel, tensors_.at(name).file->string(), ": tensor ", name, " ",
                found, ", expected ", expected);
}

const void* CheckpointBinder::in_place_or_copy(const Tensor& t, DType dtype) {
    if (aligned_for(t.data, dtype)) return t.data;
    uint8_t* copy = reserve_copy(t.bytes);
    if (copy != nullptr) std::memcpy(copy, t.data, static_cast<size_t>(t.bytes));
    return copy;
}

uint8_t* CheckpointBinder::reserve_copy(int64_t bytes) {
    const int64_t offset = copy_bytes_;
    copy_bytes_ += align_up(bytes);
    return checking_ ? nullptr : checkpoint_.copies_.data() + offset;
}

}  // namespace dsa
