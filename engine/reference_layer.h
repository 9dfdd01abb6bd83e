#pragma once
// One decoder layer of the reference path, and the model that it is a part of.

#include <cstdint>
#include <span>
#include <vector>

#include "base/rope.h"
#include "base/thread_pool.h"
#include "dsa/engine.h"
#include "engine/reference.h"
#include "engine/reference_ops.h"
#include "engine/weights.h"

namespace dsa::reference {

struct Mlp {
    Matrix gate_proj, up_proj, down_proj;
};

struct Layer {
    Layer(const LayerWeights& weights, bool has_shared_experts);

    const LayerWeights* weights;  // its norms and biases are used from here
    Matrix q_a_proj, q_b_proj, kv_a_proj, kv_b_proj, o_proj;
    Matrix index_wq_b, index_wk, index_weights_proj;
    Mlp mlp;  // dense layers
    Matrix gate;
    std::vector<Mlp> experts;
    Mlp shared_experts;  // where there are any
    int64_t moe_index = -1;
};

struct Model {
    Model(const Checkpoint& checkpoint, const ReferenceSteps& steps, int64_t context_length,
          int threads);

    ModelConfig config;
    ReferenceSteps steps;
    RopeTable rope;
    int64_t context_length;
    float softmax_scale;  // sigma
    Matrix embed_tokens, lm_head;
    std::vector<Layer> layers;
    const float* norm;
    ThreadPool pool;
};

// Consecutive tokens that go through a layer at once.
struct Chunk {
    ReferenceCache& cache;
    int64_t position;
    int64_t num_tokens;
    ForwardTrace* trace;  // may be null
};

// x[m, w.k] w^T -> [m, w.n] in fp32; x is quantised where the step is on and the weight is FP8.
std::vector<float> linear_f32(Model& model, const Matrix& w, std::span<const float> x);
// RMSNorm of rows of x[m, n].
std::vector<float> norm_rows(const Model& model, std::span<const float> x, const float* weight,
                             int64_t n);

// stream: [num_tokens, hidden_size], the residual sum before the layer; becomes the sum behind it.
// It is unrounded, as the next norm wants it; the residual stream itself is bf16 where that step is
// on.
void run_layer(Model& model, int64_t layer, const Chunk& chunk, std::vector<float>& stream);

}  // namespace dsa::reference
