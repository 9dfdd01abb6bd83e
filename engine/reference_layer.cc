#include "engine/reference_layer.h"

#include <algorithm>
#include <cmath>

#include "engine/reference_attention.h"

namespace dsa::reference {
namespace {

constexpr double kIndexNormEps = 1e-6;

// bf16 between operators, where that step is on.
void round_result(const Model& model, std::span<float> x) {
    if (model.steps.bf16) round_to_bf16(x);
}

std::vector<float> linear(Model& model, const Matrix& w, std::span<const float> x) {
    std::vector<float> y = linear_f32(model, w, x);
    round_result(model, y);
    return y;
}

// Rotates the first `dim of the table` values of rows [num_tokens][heads] that lie `stride` apart.
void rope_rows(const Model& model, RopePairing pairing, const Chunk& chunk, int64_t heads,
               int64_t stride, float* x) {
    const auto dim = static_cast<size_t>(model.rope.dim());
    for (int64_t t = 0; t < chunk.num_tokens; ++t) {
        for (int64_t h = 0; h < heads; ++h, x += stride) {
            apply_rope(model.rope, pairing, chunk.position + t, x);
            round_result(model, {x, dim});
        }
    }
}

// RoPE, Hadamard rotation and quantisation of index queries or keys [rows][index_head_dim].
void finish_index_vectors(const Model& model, const Chunk& chunk, int64_t heads,
                          std::span<float> x) {
    const int64_t dim = model.config.index_head_dim;
    const RopePairing pairing =
        model.config.indexer_rope_interleave ? RopePairing::kInterleaved : RopePairing::kHalfSplit;
    rope_rows(model, pairing, chunk, heads, dim, x.data());
    if (model.steps.hadamard) {
        for (int64_t i = 0; i < chunk.num_tokens * heads; ++i) {
            hadamard(x.subspan(static_cast<size_t>(i * dim), static_cast<size_t>(dim)));
        }
        round_result(model, x);
    }
    if (model.steps.index) quantize_dequantize(x, dim, model.config.ue8m0_scales);
}

// The lightning indexer. x: normed hidden states, qr: normed query latents.
Selection select_tokens(Model& model, const Layer& layer, int64_t layer_index, const Chunk& chunk,
                        std::span<const float> x, std::span<const float> qr) {
    const ModelConfig& config = model.config;
    const IndexerWeights& norms = layer.weights->self_attn.indexer;
    const int64_t dim = config.index_head_dim;

    std::vector<float> k = linear(model, layer.index_wk, x);
    for (int64_t t = 0; t < chunk.num_tokens; ++t) {
        const std::span<float> row(k.data() + t * dim, static_cast<size_t>(dim));
        layer_norm(row, norms.k_norm_weight, norms.k_norm_bias, kIndexNormEps, row.data());
    }
    round_result(model, k);
    finish_index_vectors(model, chunk, 1, k);
    std::copy(k.begin(), k.end(), chunk.cache.index_key(layer_index, chunk.position));

    std::vector<float> q = linear(model, layer.index_wq_b, qr);
    finish_index_vectors(model, chunk, config.index_n_heads, q);
    std::vector<float> w = linear_f32(model, layer.index_weights_proj, x);
    const auto scale =
        static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.index_n_heads * dim)));
    for (float& v : w) v *= scale;

    return select(model.pool, {.num_tokens = chunk.num_tokens,
                               .position = chunk.position,
                               .num_heads = config.index_n_heads,
                               .head_dim = dim,
                               .topk = config.index_topk,
                               .q = q.data(),
                               .w = w.data(),
                               .k = chunk.cache.index_key(layer_index, 0),
                               .layer = layer_index,
                               .trace = chunk.trace});
}

// Latents and RoPE keys of the chunk into the cache.
void store_kv(Model& model, const Layer& layer, int64_t layer_index, const Chunk& chunk,
              std::span<const float> x) {
    const int64_t latent = model.config.kv_lora_rank;
    const int64_t rope = model.config.qk_rope_head_dim;
    const std::vector<float> kv = linear(model, layer.kv_a_proj, x);
    float* c = chunk.cache.latent(layer_index, chunk.position);
    float* k = chunk.cache.rope_key(layer_index, chunk.position);
    for (int64_t t = 0; t < chunk.num_tokens; ++t) {
        const float* row = kv.data() + t * (latent + rope);
        rms_norm({row, static_cast<size_t>(latent)}, layer.weights->self_attn.kv_a_layernorm,
                 model.config.rms_norm_eps, c + t * latent);
        std::copy_n(row + latent, rope, k + t * rope);
    }
    const std::span<float> latents(c, static_cast<size_t>(chunk.num_tokens * latent));
    round_result(model, latents);
    if (model.steps.kv) {
        quantize_dequantize(latents, latent, model.config.ue8m0_scales);
        round_to_bf16(latents);
    }
    rope_rows(model, RopePairing::kInterleaved, chunk, 1, rope, k);
}

// Sparse MLA over the selected tokens, absorbed form. q: [num_tokens, heads, nope + rope], rotated.
std::vector<float> attend_selected(Model& model, const Layer& layer, int64_t layer_index,
                                   const Chunk& chunk, std::span<const float> q,
                                   const Selection& selection) {
    const ModelConfig& config = model.config;
    const int64_t n = chunk.num_tokens;
    const int64_t heads = config.num_attention_heads;
    const int64_t nope = config.qk_nope_head_dim;
    const int64_t query = nope + config.qk_rope_head_dim;
    const int64_t latent = config.kv_lora_rank;
    const int64_t value = config.v_head_dim;

    // Rows of kv_b a head: nope of W_UK, then value of W_UV. It never meets quantised activations.
    std::vector<float> u(static_cast<size_t>(n * heads * latent));
    for (int64_t h = 0; h < heads; ++h) {
        sgemm_nn(n, latent, nope, q.data() + h * query, heads * query,
                 layer.kv_b_proj.row(h * (nope + value)), latent, u.data() + h * latent,
                 heads * latent);
    }
    round_result(model, u);

    std::vector<float> z(u.size());
    attend(model.pool, {.num_tokens = n,
                        .position = chunk.position,
                        .num_heads = heads,
                        .latent_dim = latent,
                        .rope_dim = config.qk_rope_head_dim,
                        .softmax_scale = model.softmax_scale,
                        .u = u.data(),
                        .q_rope = q.data() + nope,
                        .q_rope_row = heads * query,
                        .q_rope_head = query,
                        .latent = chunk.cache.latent(layer_index, 0),
                        .rope_key = chunk.cache.rope_key(layer_index, 0),
                        .selection = &selection,
                        .z = z.data()});
    round_result(model, z);

    std::vector<float> o(static_cast<size_t>(n * heads * value));
    for (int64_t h = 0; h < heads; ++h) {
        sgemm_nt(n, value, latent, z.data() + h * latent, heads * latent,
                 layer.kv_b_proj.row(h * (nope + value) + nope), latent, 0.0F, o.data() + h * value,
                 heads * value);
    }
    round_result(model, o);
    return o;
}

std::vector<float> attention(Model& model, const Layer& layer, int64_t layer_index,
                             const Chunk& chunk, std::span<const float> x) {
    const ModelConfig& config = model.config;
    const int64_t heads = config.num_attention_heads;
    const int64_t nope = config.qk_nope_head_dim;
    const int64_t query = nope + config.qk_rope_head_dim;

    const std::vector<float> q_a = linear(model, layer.q_a_proj, x);
    const std::vector<float> qr =
        norm_rows(model, q_a, layer.weights->self_attn.q_a_layernorm, config.q_lora_rank);
    std::vector<float> q = linear(model, layer.q_b_proj, qr);
    rope_rows(model, RopePairing::kInterleaved, chunk, heads, query, q.data() + nope);

    store_kv(model, layer, layer_index, chunk, x);
    const Selection selection = select_tokens(model, layer, layer_index, chunk, x, qr);
    const std::vector<float> o = attend_selected(model, layer, layer_index, chunk, q, selection);
    return linear(model, layer.o_proj, o);
}

std::vector<float> mlp(Model& model, const Mlp& weights, std::span<const float> x) {
    std::vector<float> gate = linear(model, weights.gate_proj, x);
    const std::vector<float> up = linear(model, weights.up_proj, x);
    swiglu(gate, up, gate.data());
    round_result(model, gate);
    return linear(model, weights.down_proj, gate);
}

// Outputs of the chosen experts, not yet weighted: [num_tokens, experts per token, hidden].
std::vector<float> run_experts(Model& model, const Layer& layer, const std::vector<Route>& routes,
                               std::span<const float> x) {
    const int64_t hidden = model.config.hidden_size;
    const int64_t per_token = model.config.num_experts_per_tok;
    std::vector<std::vector<int64_t>> slots(layer.experts.size());
    for (size_t t = 0; t < routes.size(); ++t) {
        for (size_t i = 0; i < routes[t].experts.size(); ++i) {
            slots[static_cast<size_t>(routes[t].experts[i])].push_back(
                static_cast<int64_t>(t) * per_token + static_cast<int64_t>(i));
        }
    }
    std::vector<float> outputs(routes.size() * static_cast<size_t>(per_token * hidden));
    std::vector<float> inputs;
    for (size_t e = 0; e < slots.size(); ++e) {
        if (slots[e].empty()) continue;
        inputs.clear();
        for (int64_t slot : slots[e]) {
            const float* row = x.data() + slot / per_token * hidden;
            inputs.insert(inputs.end(), row, row + hidden);
        }
        const std::vector<float> y = mlp(model, layer.experts[e], inputs);
        for (size_t i = 0; i < slots[e].size(); ++i) {
            std::copy_n(y.data() + static_cast<int64_t>(i) * hidden, hidden,
                        outputs.data() + slots[e][i] * hidden);
        }
    }
    return outputs;
}

std::vector<float> moe(Model& model, const Layer& layer, const Chunk& chunk,
                       std::span<const float> x) {
    const ModelConfig& config = model.config;
    const int64_t hidden = config.hidden_size;
    const std::vector<float> logits = linear_f32(model, layer.gate, x);
    std::vector<Route> routes;
    for (int64_t t = 0; t < chunk.num_tokens; ++t) {
        routes.push_back(route(config,
                               {logits.data() + t * config.n_routed_experts,
                                static_cast<size_t>(config.n_routed_experts)},
                               layer.weights->moe.e_score_correction_bias));
        if (chunk.trace) {
            chunk.trace->record_experts(layer.moe_index, chunk.position + t, routes.back().experts);
        }
    }
    const std::vector<float> outputs = run_experts(model, layer, routes, x);

    std::vector<float> y(x.size(), 0.0F);
    const float* expert = outputs.data();
    for (int64_t t = 0; t < chunk.num_tokens; ++t) {
        float* row = y.data() + t * hidden;
        for (float weight : routes[static_cast<size_t>(t)].weights) {
            for (int64_t i = 0; i < hidden; ++i) row[i] += weight * expert[i];
            expert += hidden;
        }
    }
    if (config.n_shared_experts > 0) {
        const std::vector<float> shared = mlp(model, layer.shared_experts, x);
        for (size_t i = 0; i < y.size(); ++i) y[i] += shared[i];
    }
    round_result(model, y);
    return y;
}

// stream <- residual + y, where the residual is the stream as stored between operators.
void add_to_stream(const Model& model, std::vector<float>& stream, std::span<const float> y) {
    round_result(model, stream);
    for (size_t i = 0; i < stream.size(); ++i) stream[i] += y[i];
}

Mlp dequantize_mlp(const MlpWeights& weights) {
    return {dequantize(weights.gate_proj), dequantize(weights.up_proj),
            dequantize(weights.down_proj)};
}

}  // namespace

Layer::Layer(const LayerWeights& w, bool has_shared_experts)
    : weights(&w),
      q_a_proj(dequantize(w.self_attn.q_a_proj)),
      q_b_proj(dequantize(w.self_attn.q_b_proj)),
      kv_a_proj(dequantize(w.self_attn.kv_a_proj_with_mqa)),
      kv_b_proj(dequantize(w.self_attn.kv_b_proj)),
      o_proj(dequantize(w.self_attn.o_proj)),
      index_wq_b(dequantize(w.self_attn.indexer.wq_b)),
      index_wk(dequantize(w.self_attn.indexer.wk)),
      index_weights_proj(dequantize(w.self_attn.indexer.weights_proj)) {
    if (!w.is_moe) {
        mlp = dequantize_mlp(w.mlp);
        return;
    }
    gate = dequantize(w.moe.gate);
    for (const MlpWeights& expert : w.moe.experts) experts.push_back(dequantize_mlp(expert));
    if (has_shared_experts) shared_experts = dequantize_mlp(w.moe.shared_experts);
}

std::vector<float> linear_f32(Model& model, const Matrix& w, std::span<const float> x) {
    const int64_t m = static_cast<int64_t>(x.size()) / w.k;
    std::vector<float> quantized;
    if (model.steps.act && w.fp8) {
        quantized.assign(x.begin(), x.end());
        quantize_dequantize(quantized, w.k, model.config.ue8m0_scales);
        x = quantized;
    }
    std::vector<float> y(static_cast<size_t>(m * w.n));
    matmul_nt(model.pool, m, w.n, w.k, x.data(), w.k, w.data.data(), w.k, y.data(), w.n);
    return y;
}

std::vector<float> norm_rows(const Model& model, std::span<const float> x, const float* weight,
                             int64_t n) {
    std::vector<float> y(x.size());
    const auto width = static_cast<size_t>(n);
    for (size_t begin = 0; begin < x.size(); begin += width) {
        rms_norm(x.subspan(begin, width), weight, model.config.rms_norm_eps, y.data() + begin);
    }
    round_result(model, y);
    return y;
}

void run_layer(Model& model, int64_t layer_index, const Chunk& chunk, std::vector<float>& stream) {
    const Layer& layer = model.layers[static_cast<size_t>(layer_index)];
    const int64_t hidden = model.config.hidden_size;

    std::vector<float> x = norm_rows(model, stream, layer.weights->input_layernorm, hidden);
    add_to_stream(model, stream, attention(model, layer, layer_index, chunk, x));

    x = norm_rows(model, stream, layer.weights->post_attention_layernorm, hidden);
    add_to_stream(model, stream,
                  layer.weights->is_moe ? moe(model, layer, chunk, x) : mlp(model, layer.mlp, x));

    if (!chunk.trace) return;
    std::vector<float> row(static_cast<size_t>(hidden));
    for (int64_t t = 0; t < chunk.num_tokens; ++t) {
        std::copy_n(stream.data() + t * hidden, hidden, row.data());
        round_result(model, row);
        chunk.trace->record_hidden(layer_index, chunk.position + t, row);
    }
}

}  // namespace dsa::reference
