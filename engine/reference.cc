#include "engine/reference.h"

#include <algorithm>
#include <cmath>

#include "dsa/error.h"
#include "engine/blas.h"
#include "engine/reference_attention.h"
#include "engine/reference_layer.h"
#include "engine/rope_config.h"

namespace dsa {
namespace {

constexpr int64_t kChunk = 512;  // tokens that go through the layers at once
constexpr int64_t kFloatBytes = sizeof(float);

int64_t query_dim(const ModelConfig& config) {
    return config.qk_nope_head_dim + config.qk_rope_head_dim;
}

int64_t matrix_bytes(const reference::Matrix& matrix) {
    return static_cast<int64_t>(matrix.data.size()) * kFloatBytes;
}

int64_t mlp_bytes(const reference::Mlp& mlp) {
    return matrix_bytes(mlp.gate_proj) + matrix_bytes(mlp.up_proj) + matrix_bytes(mlp.down_proj);
}

}  // namespace

ReferenceCache::ReferenceCache(const ModelConfig& config, int64_t context_length)
    : context_length_(context_length),
      latent_dim_(config.kv_lora_rank),
      rope_dim_(config.qk_rope_head_dim),
      index_dim_(config.index_head_dim),
      buffer_(bytes_per_token(config) * context_length) {}

int64_t ReferenceCache::bytes_per_token(const ModelConfig& config) {
    return config.num_hidden_layers *
           (config.kv_lora_rank + config.qk_rope_head_dim + config.index_head_dim) * kFloatBytes;
}

float* ReferenceCache::row(int64_t layer, int64_t offset, int64_t dim, int64_t position) {
    const int64_t layer_floats = (latent_dim_ + rope_dim_ + index_dim_) * context_length_;
    return reinterpret_cast<float*>(buffer_.data()) + layer * layer_floats +
           offset * context_length_ + position * dim;
}

float* ReferenceCache::latent(int64_t layer, int64_t position) {
    return row(layer, 0, latent_dim_, position);
}

float* ReferenceCache::rope_key(int64_t layer, int64_t position) {
    return row(layer, latent_dim_, rope_dim_, position);
}

float* ReferenceCache::index_key(int64_t layer, int64_t position) {
    return row(layer, latent_dim_ + rope_dim_, index_dim_, position);
}

reference::Model::Model(const Checkpoint& checkpoint, const ReferenceSteps& reference_steps,
                        int64_t context, int threads)
    : config(checkpoint.config()),
      steps(reference_steps),
      rope(static_cast<int>(config.qk_rope_head_dim), config.rope_theta, yarn_params(config),
           context),
      context_length(context),
      softmax_scale(static_cast<float>(dsa::softmax_scale(config))),
      embed_tokens(dequantize(checkpoint.weights().embed_tokens)),
      lm_head(dequantize(checkpoint.weights().lm_head)),
      norm(checkpoint.weights().norm),
      pool(threads) {
    int64_t moe_layers = 0;
    for (const LayerWeights& weights : checkpoint.weights().layers) {
        layers.emplace_back(weights, config.n_shared_experts > 0);
        if (weights.is_moe) layers.back().moe_index = moe_layers++;
    }
}

ReferenceModel::ReferenceModel(const Checkpoint& checkpoint, const ReferenceSteps& steps,
                               int64_t context_length, int threads) {
    blas();  // a missing library shows when the model is opened
    model_ = std::make_unique<reference::Model>(checkpoint, steps, context_length, threads);
}

ReferenceModel::~ReferenceModel() = default;
ReferenceModel::ReferenceModel(ReferenceModel&&) noexcept = default;
ReferenceModel& ReferenceModel::operator=(ReferenceModel&&) noexcept = default;

void ReferenceModel::check_call(const ReferenceCache& cache, int64_t position,
                                int64_t num_tokens) const {
    const int64_t limit = std::min(cache.context_length(), model_->context_length);
    if (position < 0)
        throw_error(ErrorCode::kInvalidArgument, "position is ", position, ", expected >= 0");
    if (position > limit || num_tokens > limit - position)
        throw_error(ErrorCode::kContextOverflow, num_tokens, " tokens at position ", position,
                    " do not fit into a context of ", limit);
}

void ReferenceModel::forward(ReferenceCache& cache, int64_t position, std::span<const int32_t> ids,
                             std::span<const int64_t> logit_rows, float* logits,
                             ForwardTrace* trace) const {
    const int64_t hidden = model_->config.hidden_size;
    const int64_t vocab = model_->config.vocab_size;
    const auto num_tokens = static_cast<int64_t>(ids.size());
    check_call(cache, position, num_tokens);
    for (int32_t id : ids) {
        if (id < 0 || id >= vocab)
            throw_error(ErrorCode::kInvalidArgument, "token id ", id,
                        " is outside of the vocabulary of ", vocab);
    }
    if (!logit_rows.empty() && (logit_rows.front() < 0 || logit_rows.back() >= num_tokens ||
                                !std::is_sorted(logit_rows.begin(), logit_rows.end())))
        throw_error(ErrorCode::kInvalidArgument, "logit rows are not ascending within [0, ",
                    num_tokens, ")");

    auto next_row = logit_rows.begin();
    for (int64_t begin = 0; begin < num_tokens; begin += kChunk) {
        const int64_t n = std::min(kChunk, num_tokens - begin);
        std::vector<float> stream(static_cast<size_t>(n * hidden));
        for (int64_t t = 0; t < n; ++t) {
            std::copy_n(model_->embed_tokens.row(ids[static_cast<size_t>(begin + t)]), hidden,
                        stream.data() + t * hidden);
        }
        const reference::Chunk chunk{cache, position + begin, n, trace};
        for (int64_t l = 0; l < model_->config.num_hidden_layers; ++l) {
            reference::run_layer(*model_, l, chunk, stream);
        }

        std::vector<float> rows;
        for (; next_row != logit_rows.end() && *next_row < begin + n; ++next_row) {
            const float* row = stream.data() + (*next_row - begin) * hidden;
            rows.insert(rows.end(), row, row + hidden);
        }
        if (rows.empty()) continue;
        const std::vector<float> x = reference::norm_rows(*model_, rows, model_->norm, hidden);
        const std::vector<float> y = reference::linear_f32(*model_, model_->lm_head, x);
        logits = std::copy(y.begin(), y.end(), logits);
    }
}

std::vector<float> ReferenceModel::forward_layer(ReferenceCache& cache, int64_t layer,
                                                 int64_t position, std::span<const float> hidden,
                                                 ForwardTrace* trace) const {
    const int64_t width = model_->config.hidden_size;
    const auto num_tokens = static_cast<int64_t>(hidden.size()) / width;
    check_call(cache, position, num_tokens);
    if (layer < 0 || layer >= model_->config.num_hidden_layers)
        throw_error(ErrorCode::kInvalidArgument, "layer is ", layer, ", expected one of ",
                    model_->config.num_hidden_layers);

    std::vector<float> out;
    for (int64_t begin = 0; begin < num_tokens; begin += kChunk) {
        const int64_t n = std::min(kChunk, num_tokens - begin);
        const float* first = hidden.data() + begin * width;
        std::vector<float> stream(first, first + n * width);
        reference::run_layer(*model_, layer, {cache, position + begin, n, trace}, stream);
        if (model_->steps.bf16) reference::round_to_bf16(stream);
        out.insert(out.end(), stream.begin(), stream.end());
    }
    return out;
}

int64_t ReferenceModel::weight_bytes(const ModelConfig& config) {
    const int64_t hidden = config.hidden_size;
    const int64_t heads = config.num_attention_heads;
    const int64_t attention =
        config.q_lora_rank * (hidden + heads * query_dim(config)) +
        (config.kv_lora_rank + config.qk_rope_head_dim) * hidden +
        heads * (config.qk_nope_head_dim + config.v_head_dim) * config.kv_lora_rank +
        hidden * heads * config.v_head_dim +
        config.index_n_heads * (config.index_head_dim * config.q_lora_rank + hidden) +
        config.index_head_dim * hidden;
    const int64_t dense = 3 * hidden * config.intermediate_size;
    const int64_t moe =
        config.n_routed_experts * hidden + (config.n_routed_experts + config.n_shared_experts) * 3 *
                                               hidden * config.moe_intermediate_size;
    int64_t floats = 2 * config.vocab_size * hidden;
    for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
        floats += attention + (is_moe_layer(config, l) ? moe : dense);
    }
    return floats * kFloatBytes;
}

int64_t ReferenceModel::scratch_bytes(const ModelConfig& config, int64_t context_length,
                                      int threads) {
    const int64_t hidden = config.hidden_size;
    const int64_t heads = config.num_attention_heads;
    const int64_t index_dim = config.index_head_dim;
    const auto gated = [&](int64_t width) {  // gate, up, output, a quantised copy of the input
        return 2 * width + hidden + std::max(hidden, width);
    };
    // Floats of a token that live at once, operator by operator (reference_layer.cc).
    const int64_t latents = 2 * config.q_lora_rank + heads * query_dim(config) +
                            std::min(config.index_topk, context_length);
    const int64_t select = latents + (config.index_n_heads + 1) * (index_dim + 1) +
                           std::max(hidden, config.q_lora_rank);
    const int64_t attend = latents + heads * (2 * config.kv_lora_rank + config.v_head_dim);
    const int64_t project = latents + 2 * heads * config.v_head_dim + hidden;
    const int64_t experts =
        2 * config.n_routed_experts + (config.num_experts_per_tok + 2) * hidden +
        gated(config.moe_intermediate_size * std::max<int64_t>(1, config.n_shared_experts));
    const int64_t token =
        3 * hidden + std::max({select, attend, project, experts, gated(config.intermediate_size)});
    return std::min(kChunk, context_length) * token * kFloatBytes +
           reference::attention_scratch_bytes(context_length, config.index_n_heads,
                                              config.index_topk, config.kv_lora_rank,
                                              config.qk_rope_head_dim, heads, threads);
}

int64_t ReferenceModel::table_bytes(const ModelConfig& config, int64_t context_length) {
    return context_length * config.qk_rope_head_dim * kFloatBytes;
}

int64_t ReferenceModel::weight_bytes() const {
    int64_t bytes = matrix_bytes(model_->embed_tokens) + matrix_bytes(model_->lm_head);
    for (const reference::Layer& layer : model_->layers) {
        bytes += matrix_bytes(layer.q_a_proj) + matrix_bytes(layer.q_b_proj) +
                 matrix_bytes(layer.kv_a_proj) + matrix_bytes(layer.kv_b_proj) +
                 matrix_bytes(layer.o_proj) + matrix_bytes(layer.index_wq_b) +
                 matrix_bytes(layer.index_wk) + matrix_bytes(layer.index_weights_proj) +
                 mlp_bytes(layer.mlp) + matrix_bytes(layer.gate) + mlp_bytes(layer.shared_experts);
        for (const reference::Mlp& expert : layer.experts) bytes += mlp_bytes(expert);
    }
    return bytes;
}

}  // namespace dsa
