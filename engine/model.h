#pragma once
// The forward pass over the kernels, for precisions and ISAs of the CPU. Start reading in model.cc.
// Immutable after construction; views the checkpoint, which must outlive it. Safe from several
// threads, each with its own context and cache.

#include <cstdint>
#include <span>
#include <vector>

#include "base/exec.h"
#include "base/rope.h"
#include "engine/checkpoint.h"
#include "engine/forward_trace.h"
#include "engine/kv_cache.h"
#include "gemm/gemm.h"

namespace dsa {

class Model {
  public:
    Model(const Checkpoint& checkpoint, gemm::Precision precision, int64_t context_length);

    // Takes tokens in at positions [position, position + ids.size()); the cache holds those before.
    // Ids lie in the vocabulary, positions in the context. logits: [logit_rows.size(), vocab_size]
    // of the rows (indices within the call, ascending). Scratch: scratch_bytes() for this many
    // tokens. exec.stop is asked before each layer: kCancelled, with the cache as before up to
    // `position`.
    void forward(Exec& exec, KvCache& cache, int64_t position, std::span<const int32_t> ids,
                 std::span<const int64_t> logit_rows, float* logits, ForwardTrace* trace) const;

    // One layer from given hidden states [n, hidden_size] (the residual stream before it, rounded
    // to bf16); returns the residual stream behind it.
    std::vector<float> forward_layer(Exec& exec, KvCache& cache, int64_t layer, int64_t position,
                                     std::span<const float> hidden, ForwardTrace* trace) const;

    // Upper bound for one call with `tokens` tokens that ends within the context.
    static int64_t scratch_bytes(const ModelConfig& config, int64_t tokens, int64_t context_length,
                                 int threads);
    static int64_t table_bytes(const ModelConfig& config, int64_t context_length);

  private:
    struct Pass;  // the buffers of one call
    // A MoE layer's expert weights by pointer, as the grouped products take them.
    struct ExpertPointers {
        std::vector<const Weight*> gate, up, down;
    };

    void layer(Pass& pass, int64_t index) const;
    void attention(Pass& pass, int64_t index) const;
    void select(Pass& pass, int64_t index) const;
    void feed_forward(Pass& pass, int64_t index) const;
    void head(Pass& pass, std::span<const int64_t> rows, float* logits) const;
    void record(Pass& pass, int64_t index) const;
    void record_index_scores(Pass& pass, int64_t index) const;

    const ModelConfig& config_;
    const ModelWeights& weights_;
    gemm::Precision precision_;
    gemm::ScaleFormat format_;
    RopePairing index_pairing_;
    float norm_eps_;
    float softmax_scale_;
    RopeTable rope_;
    std::vector<ExpertPointers> experts_;  // [layers]; empty for dense ones
};

}  // namespace dsa
