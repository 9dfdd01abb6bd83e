#pragma once
// Binds the tensors of a checkpoint to ModelWeights: each by name, shape and type, once. Two passes
// over the same walk: the first checks everything and measures, the second sets the pointers and
// makes the copies, so that nothing is allocated for a checkpoint that turns out wrong. Throws
// kInvalidModel, naming the tensor, what was found and what was expected.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/dtypes.h"
#include "engine/checkpoint.h"

namespace dsa {

// A tensor of one of the checkpoint's files.
struct TensorEntry {
    const Tensor* tensor = nullptr;
    const std::filesystem::path* file = nullptr;
    bool bound = false;
};
// Ordered: names come from a file, and a hash table can be given names that all collide.
using TensorTable = std::map<std::string, TensorEntry>;

class CheckpointBinder {
  public:
    // Both live longer than the binder. The checkpoint's files are open and its config is set.
    CheckpointBinder(Checkpoint& checkpoint, TensorTable& tensors);

    // Fills weights, copies and the info's sums; appends warnings.
    void bind();

  private:
    void walk();
    void check_layer_numbers() const;
    bool has_mtp_tensors() const;
    void finish_info();
    void warn_unused();

    void bind_mtp(int64_t layer, MtpWeights& mtp);
    void bind_layer(int64_t layer, LayerWeights& w);
    void bind_attention(const std::string& prefix, AttentionWeights& w);
    void bind_indexer(const std::string& prefix, IndexerWeights& w);
    void bind_mlp(const std::string& prefix, int64_t intermediate, MlpWeights& w);
    void bind_moe(const std::string& prefix, MoeWeights& w);

    // `name` is that of the tensor itself: "lm_head.weight".
    Weight linear(const std::string& name, int64_t n, int64_t k, bool fp8_allowed = true);
    const float* scales(const std::string& weight_name, int64_t n, int64_t k);
    const float* vector(const std::string& name, int64_t n);  // F32, or BF16 widened

    const TensorEntry& take(const std::string& name, const std::vector<int64_t>& shape,
                            const char* dtypes);
    [[noreturn]] void wrong(const std::string& name, const std::string& found,
                            const std::string& expected) const;
    // The tensor where it lies, or a copy if its address does not suit its type.
    const void* in_place_or_copy(const Tensor& t, DType dtype);
    // Room for `bytes` in the copies; nullptr in the first pass.
    uint8_t* reserve_copy(int64_t bytes);

    Checkpoint& checkpoint_;
    const ModelConfig& config_;
    TensorTable& tensors_;

    bool checking_ = true;    // the first pass
    int64_t copy_bytes_ = 0;  // taken from the copies so far in this pass
    bool with_mtp_ = false;
    int64_t parameters_ = 0;  // of the linears and vectors so far
    int64_t inactive_ = 0;    // of these: routed experts that a token does not visit
    int64_t bytes_ = 0;       // of tensors so far, scales included
    int64_t inactive_bytes_ = 0;
    std::map<std::string, TensorSummary> summary_;
};

}  // namespace dsa
