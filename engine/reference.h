#pragma once
// The reference forward pass: plain code in fp32 with every low-precision step switchable
// (dsa::ReferenceSteps). With all steps off it is the fp32 model; kernels are compared to it.
// ReferenceModel is immutable and may be used from several threads, one cache a thread at a time;
// parallel regions of different callers then run one after another. It views the checkpoint's
// norms: the checkpoint must outlive it. Sets OpenBLAS's own thread count of the process to 1.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/arena.h"
#include "dsa/engine.h"
#include "engine/checkpoint.h"
#include "engine/forward_trace.h"

namespace dsa {

namespace reference {
struct Model;
}

// Caches of one session, fp32. Memory is reserved for context_length tokens, and taken as it is
// written. Rows of positions not yet written are 0; rewinding needs no call.
class ReferenceCache {
  public:
    ReferenceCache(const ModelConfig& config, int64_t context_length);
    static int64_t bytes_per_token(const ModelConfig& config);

    int64_t context_length() const { return context_length_; }
    // Row of a position; the rows of the positions that follow lie behind it.
    float* latent(int64_t layer, int64_t position);     // [kv_lora_rank]
    float* rope_key(int64_t layer, int64_t position);   // [qk_rope_head_dim]
    float* index_key(int64_t layer, int64_t position);  // [index_head_dim]

  private:
    float* row(int64_t layer, int64_t offset, int64_t dim, int64_t position);

    int64_t context_length_;
    int64_t latent_dim_;
    int64_t rope_dim_;
    int64_t index_dim_;
    AlignedBuffer buffer_;  // [layers]([context, latent], [context, rope], [context, index])
};

class ReferenceModel {
  public:
    ReferenceModel(const Checkpoint& checkpoint, const ReferenceSteps& steps,
                   int64_t context_length, int threads);
    ~ReferenceModel();
    ReferenceModel(ReferenceModel&&) noexcept;
    ReferenceModel& operator=(ReferenceModel&&) noexcept;

    // Takes tokens in at positions [position, position + ids.size()); the cache holds those before.
    // logits: [logit_rows.size(), vocab_size] of the rows (indices within the call, ascending).
    // Throws kContextOverflow or kInvalidArgument before anything is written.
    void forward(ReferenceCache& cache, int64_t position, std::span<const int32_t> ids,
                 std::span<const int64_t> logit_rows, float* logits, ForwardTrace* trace) const;

    // One layer from given hidden states [n, hidden_size] (the residual stream before the layer);
    // returns the residual stream behind it.
    std::vector<float> forward_layer(ReferenceCache& cache, int64_t layer, int64_t position,
                                     std::span<const float> hidden, ForwardTrace* trace) const;

    // For memory plans: the weights as fp32, and an upper bound for the temporaries of one call
    // (logits and trace not counted).
    static int64_t weight_bytes(const ModelConfig& config);
    static int64_t scratch_bytes(const ModelConfig& config, int64_t context_length, int threads);
    static int64_t table_bytes(const ModelConfig& config, int64_t context_length);

    // Bytes that the fp32 weights do take.
    int64_t weight_bytes() const;

  private:
    void check_call(const ReferenceCache& cache, int64_t position, int64_t num_tokens) const;

    std::unique_ptr<reference::Model> model_;
};

}  // namespace dsa
