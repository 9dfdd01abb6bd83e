// The forward pass of DeepSeek-V3.2: Model::forward, then layer(), attention(), feed_forward(),
// head().

#include "engine/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "attention/attention.h"
#include "engine/rope_config.h"
#include "gemm/activation.h"
#include "indexer/indexer.h"
#include "moe/moe.h"

namespace dsa {

namespace {

// Tokens of a call that keeps the threads to its end.
constexpr int64_t kShortCall = 16;

// Activations of one call of m tokens, from the context's scratch.
struct Buffers {
    float* residual;    // [m, hidden]
    bf16* pending;      // [m, hidden], output of the last half layer, which the next norm adds
    bf16* h;            // [m, hidden], normed input of the current half layer
    bf16* q_latent;     // [m, q_lora_rank]
    bf16* kv;           // [m, 576]
    bf16* q;            // [m, heads, 192]
    bf16* q_absorbed;   // [m, heads, 576]
    bf16* z;            // [m, heads, 512]
    bf16* o;            // [m, heads, 128]
    bf16* index_k;      // [m, 128]
    bf16* index_q;      // [m, index heads, 128]
    float* index_w;     // [m, index heads]
    e4m3* index_q8;     // [m, index heads, 128]
    float* index_w8;    // [m, index heads], scales folded in
    int32_t* selected;  // [m, index_topk]
    int32_t* lengths;   // [m]
    float* gate;        // [m, experts]
    int32_t* experts;   // [m, experts per token]
    float* expert_weights;
};

// Calls visit(pointer, elements) for each; allocation and planning share it.
template <typename Visit>
void visit_buffers(Buffers& p, const ModelConfig& c, int64_t m, const Visit& visit) {
    visit(p.residual, m * c.hidden_size);
    visit(p.pending, m * c.hidden_size);
    visit(p.h, m * c.hidden_size);
    visit(p.q_latent, m * c.q_lora_rank);
    visit(p.kv, m * attention::kKeyDim);
    visit(p.q, m * c.num_attention_heads * attention::kQueryDim);
    visit(p.q_absorbed, m * c.num_attention_heads * attention::kKeyDim);
    visit(p.z, m * c.num_attention_heads * attention::kLatentDim);
    visit(p.o, m * c.num_attention_heads * attention::kValueDim);
    visit(p.index_k, m * indexer::kHeadDim);
    visit(p.index_q, m * c.index_n_heads * indexer::kHeadDim);
    visit(p.index_w, m * c.index_n_heads);
    visit(p.index_q8, m * c.index_n_heads * indexer::kHeadDim);
    visit(p.index_w8, m * c.index_n_heads);
    visit(p.selected, m * c.index_topk);
    visit(p.lengths, m);
    visit(p.gate, m * c.n_routed_experts);
    visit(p.experts, m * c.num_experts_per_tok);
    visit(p.expert_weights, m * c.num_experts_per_tok);
}

}  // namespace

struct Model::Pass : Buffers {
    Exec& exec;
    KvCache& cache;
    ForwardTrace* trace;
    int64_t m;
    int64_t position;
    bool has_pending = false;

    Pass(Exec& e, KvCache& c, ForwardTrace* t, const ModelConfig& config, int64_t tokens,
         int64_t first)
        : Buffers{}, exec(e), cache(c), trace(t), m(tokens), position(first) {
        visit_buffers(*this, config, m, [&]<typename T>(T*& buffer, int64_t n) {
            buffer = exec.scratch.alloc<T>(n);
        });
    }
};

Model::Model(const Checkpoint& checkpoint, gemm::Precision precision, int64_t context_length)
    : config_(checkpoint.config()),
      weights_(checkpoint.weights()),
      precision_(precision),
      format_(config_.ue8m0_scales ? gemm::ScaleFormat::kUe8m0 : gemm::ScaleFormat::kPlain),
      index_pairing_(config_.indexer_rope_interleave ? RopePairing::kInterleaved
                                                     : RopePairing::kHalfSplit),
      norm_eps_(static_cast<float>(config_.rms_norm_eps)),
      softmax_scale_(static_cast<float>(softmax_scale(config_))),
      rope_(static_cast<int>(attention::kRopeDim), config_.rope_theta, yarn_params(config_),
            context_length) {
    for (const LayerWeights& layer : weights_.layers) {
        ExpertPointers& p = experts_.emplace_back();
        for (const MlpWeights& expert : layer.moe.experts) {
            p.gate.push_back(&expert.gate_proj);
            p.up.push_back(&expert.up_proj);
            p.down.push_back(&expert.down_proj);
        }
    }
}

void Model::forward(Exec& exec, KvCache& cache, int64_t position, std::span<const int32_t> ids,
                    std::span<const int64_t> logit_rows, float* logits, ForwardTrace* trace) const {
    const Arena::Scope scope(exec.scratch);
    Pass pass(exec, cache, trace, config_, static_cast<int64_t>(ids.size()), position);
    const int64_t hidden = config_.hidden_size;
    const auto* embedding = static_cast<const bf16*>(weights_.embed_tokens.data);
    for (int64_t i = 0; i < pass.m; ++i)
        std::transform(embedding + ids[static_cast<size_t>(i)] * hidden,
                       embedding + (ids[static_cast<size_t>(i)] + 1) * hidden,
                       pass.residual + i * hidden, [](bf16 x) { return to_float(x); });
    // Sessions take turns with the threads: after each layer of a long chunk, else after each call.
    std::optional<ThreadPool::Lease> lease;
    for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
        exec.check_stop();
        if (pass.m > kShortCall) lease.reset();
        if (!lease) lease.emplace(exec.pool);
        layer(pass, l);
    }
    if (!logit_rows.empty()) head(pass, logit_rows, logits);
}

void Model::layer(Pass& p, int64_t index) const {
    const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
    const int64_t hidden = config_.hidden_size;
    gemm::add_rms_norm(p.exec, {p.m, hidden, p.residual, p.has_pending ? p.pending : nullptr,
                                w.input_layernorm, norm_eps_, p.h});
    attention(p, index);
    gemm::add_rms_norm(
        p.exec, {p.m, hidden, p.residual, p.pending, w.post_attention_layernorm, norm_eps_, p.h});
    feed_forward(p, index);
    p.has_pending = true;
    if (p.trace != nullptr) record(p, index);
}

// h -> pending
void Model::attention(Pass& p, int64_t index) const {
    const AttentionWeights& w = weights_.layers[static_cast<size_t>(index)].self_attn;
    const int64_t heads = config_.num_attention_heads;
    const int64_t q_rank = config_.q_lora_rank;
    const gemm::LinearOutput from_hidden[] = {
        {&w.q_a_proj, {p.q_latent, DType::kBF16, q_rank}},
        {&w.kv_a_proj_with_mqa, {p.kv, DType::kBF16, attention::kKeyDim}},
        {&w.indexer.wk, {p.index_k, DType::kBF16, indexer::kHeadDim}},
        {&w.indexer.weights_proj, {p.index_w, DType::kF32, config_.index_n_heads}}};
    gemm::linear(p.exec, {p.m, {p.h, config_.hidden_size}, precision_, format_, from_hidden});
    gemm::rms_norm(p.exec,
                   {p.m, q_rank, p.q_latent, q_rank, w.q_a_layernorm, norm_eps_, p.q_latent});
    const gemm::LinearOutput from_latent[] = {
        {&w.q_b_proj, {p.q, DType::kBF16, heads * attention::kQueryDim}},
        {&w.indexer.wq_b, {p.index_q, DType::kBF16, config_.index_n_heads * indexer::kHeadDim}}};
    gemm::linear(p.exec, {p.m, {p.q_latent, q_rank}, precision_, format_, from_latent});

    const PageTable kv = p.cache.kv(index);
    attention::store_kv(p.exec, {p.m, p.position, p.kv, attention::kKeyDim, w.kv_a_layernorm,
                                 norm_eps_, &rope_, format_, kv});
    select(p, index);
    attention::absorb_queries(p.exec,
                              {p.m, heads, p.position, p.q, w.kv_b_proj, &rope_, p.q_absorbed});
    attention::sparse_mla(p.exec, {p.m, heads, p.q_absorbed, p.selected, config_.index_topk,
                                   p.lengths, softmax_scale_, kv, p.z});
    attention::project_values(p.exec, {p.m, heads, p.z, w.kv_b_proj, p.o});
    const gemm::LinearOutput output[] = {
        {&w.o_proj, {p.pending, DType::kBF16, config_.hidden_size}}};
    gemm::linear(p.exec, {p.m, {p.o, heads * attention::kValueDim}, precision_, format_, output});
}

// index_q, index_k, index_w -> the index cache, selected
void Model::select(Pass& p, int64_t index) const {
    const IndexerWeights& w = weights_.layers[static_cast<size_t>(index)].self_attn.indexer;
    const int64_t heads = config_.index_n_heads;
    const PageTable keys = p.cache.index_keys(index);
    indexer::store_keys(p.exec, {p.m, p.position, p.index_k, indexer::kHeadDim, w.k_norm_weight,
                                 w.k_norm_bias, &rope_, index_pairing_, format_, keys});
    indexer::prepare_queries(p.exec, {p.m, heads, p.position, p.index_q, p.index_w, &rope_,
                                      index_pairing_, format_, p.index_q8, p.index_w8});
    indexer::select(p.exec, {p.m, heads, p.position, config_.index_topk, p.index_q8, p.index_w8,
                             keys, p.selected, p.lengths});
}

// h -> pending
void Model::feed_forward(Pass& p, int64_t index) const {
    const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
    if (!w.is_moe) {
        moe::mlp(p.exec, {p.m,
                          p.h,
                          &w.mlp.gate_proj,
                          &w.mlp.up_proj,
                          &w.mlp.down_proj,
                          precision_,
                          format_,
                          {p.pending, DType::kBF16, config_.hidden_size}});
        return;
    }
    const int64_t num_experts = config_.n_routed_experts;
    const int64_t topk = config_.num_experts_per_tok;
    const gemm::LinearOutput gate[] = {{&w.moe.gate, {p.gate, DType::kF32, num_experts}}};
    gemm::linear(p.exec, {p.m, {p.h, config_.hidden_size}, precision_, format_, gate});
    moe::route(p.exec, {p.m, num_experts, config_.n_group, config_.topk_group, topk,
                        config_.norm_topk_prob, static_cast<float>(config_.routed_scaling_factor),
                        p.gate, w.moe.e_score_correction_bias, p.experts, p.expert_weights});
    const ExpertPointers& experts = experts_[static_cast<size_t>(index)];
    const MlpWeights& shared = w.moe.shared_experts;
    const bool has_shared = config_.n_shared_experts > 0;
    moe::expert_mlp(p.exec, {p.m,
                             num_experts,
                             topk,
                             p.h,
                             p.experts,
                             p.expert_weights,
                             {experts.gate.data(), experts.up.data(), experts.down.data()},
                             has_shared ? &shared.gate_proj : nullptr,
                             has_shared ? &shared.up_proj : nullptr,
                             has_shared ? &shared.down_proj : nullptr,
                             precision_,
                             format_,
                             p.pending});
}

void Model::head(Pass& p, std::span<const int64_t> rows, float* logits) const {
    const int64_t hidden = config_.hidden_size;
    gemm::add_rms_norm(p.exec, {p.m, hidden, p.residual, p.pending, weights_.norm, norm_eps_, p.h});
    for (size_t i = 0; i < rows.size();
         ++i)  // ascending, so a row never moves onto one still needed
        std::memmove(p.h + static_cast<int64_t>(i) * hidden, p.h + rows[i] * hidden,
                     static_cast<size_t>(hidden) * sizeof(bf16));
    const gemm::LinearOutput out[] = {
        {&weights_.lm_head, {logits, DType::kF32, config_.vocab_size}}};
    gemm::linear(p.exec,
                 {static_cast<int64_t>(rows.size()), {p.h, hidden}, precision_, format_, out});
}

std::vector<float> Model::forward_layer(Exec& exec, KvCache& cache, int64_t index, int64_t position,
                                        std::span<const float> hidden, ForwardTrace* trace) const {
    const Arena::Scope scope(exec.scratch);
    const auto n = static_cast<int64_t>(hidden.size());
    Pass pass(exec, cache, trace, config_, n / config_.hidden_size, position);
    std::copy(hidden.begin(), hidden.end(), pass.residual);
    layer(pass, index);
    std::vector<float> out(hidden.size());
    for (int64_t i = 0; i < n; ++i)
        out[static_cast<size_t>(i)] = pass.residual[i] + to_float(pass.pending[i]);
    return out;
}

void Model::record(Pass& p, int64_t index) const {
    const int64_t hidden = config_.hidden_size;
    const auto layers = weights_.layers.begin();
    const bool is_moe = layers[index].is_moe;
    const int64_t moe_layer =
        std::count_if(layers, layers + index, [](const LayerWeights& w) { return w.is_moe; });
    const int64_t topk = config_.num_experts_per_tok;
    std::vector<float> row(static_cast<size_t>(hidden));
    for (int64_t i = 0; i < p.m; ++i) {
        const int64_t position = p.position + i;
        if (!p.trace->wants_row(position)) continue;
        for (int64_t d = 0; d < hidden; ++d)
            row[static_cast<size_t>(d)] =
                p.residual[i * hidden + d] + to_float(p.pending[i * hidden + d]);
        p.trace->record_hidden(index, position, row);
        p.trace->record_topk(
            index, position,
            {p.selected + i * config_.index_topk, static_cast<size_t>(p.lengths[i])});
        if (is_moe)
            p.trace->record_experts(moe_layer, position,
                                    {p.experts + i * topk, static_cast<size_t>(topk)});
    }
    record_index_scores(p, index);
}

void Model::record_index_scores(Pass& p, int64_t index) const {
    const int64_t heads = config_.index_n_heads;
    for (int64_t i = 0; i < p.m; ++i) {
        const int64_t position = p.position + i;
        if (!p.trace->wants_index_row(position)) continue;
        std::vector<float> scores(static_cast<size_t>(align_up(position + 1, kPageTokens)));
        indexer::fp8_paged_mqa_logits(
            p.exec,
            {1, heads, position, p.index_q8 + i * heads * indexer::kHeadDim, p.index_w8 + i * heads,
             p.cache.index_keys(index), scores.data(), static_cast<int64_t>(scores.size())});
        scores.resize(static_cast<size_t>(position + 1));
        p.trace->record_index_scores(index, position, scores);
    }
}

int64_t Model::scratch_bytes(const ModelConfig& c, int64_t tokens, int64_t context_length,
                             int threads) {
    int64_t buffers = 0;
    Buffers none{};
    visit_buffers(none, c, tokens,
                  [&]<typename T>(T*&, int64_t n) { buffers += Arena::bytes_for<T>(n); });
    const int64_t hidden = c.hidden_size;
    const int64_t widest = std::max({hidden, c.q_lora_rank, c.num_attention_heads * c.v_head_dim});
    const int64_t shared = c.moe_intermediate_size * c.n_shared_experts;
    const int64_t ops[] = {
        Arena::bytes_for<float>(threads * c.q_lora_rank),  // rms_norm
        gemm::linear_scratch_bytes(tokens, widest, threads),
        indexer::select_scratch_bytes(context_length, c.index_n_heads, threads),
        attention::sparse_mla_scratch_bytes(c.num_attention_heads, c.index_topk, threads),
        attention::projections_scratch_bytes(threads),
        moe::mlp_scratch_bytes(tokens, hidden, c.intermediate_size, threads),
        moe::route_scratch_bytes(c.n_routed_experts, c.n_group, threads),
        moe::expert_mlp_scratch_bytes({tokens, c.n_routed_experts, c.num_experts_per_tok, hidden,
                                       c.moe_intermediate_size, shared},
                                      threads)};
    return buffers + *std::max_element(std::begin(ops), std::end(ops));
}

int64_t Model::table_bytes(const ModelConfig&, int64_t context_length) {
    return context_length * attention::kRopeDim * static_cast<int64_t>(sizeof(float));
}

}  // namespace dsa
