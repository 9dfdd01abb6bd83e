#pragma once
// A checkpoint folder in the HuggingFace layout, mapped and validated: every tensor is bound once,
// by name, shape and type. Immutable after construction; weights live as long as the object. Throws
// kNotFound, kInvalidModel or kUnsupported, naming file, tensor or field, what was found and what
// was expected.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/arena.h"
#include "dsa/model_info.h"
#include "dsa/safetensors.h"
#include "engine/weights.h"

namespace dsa {

// config.json and generation_config.json of a model folder (engine/config.cc). The result is
// complete and consistent: every size is positive and bounded, every combination is one the engine
// runs.
ModelConfig read_config(const std::filesystem::path& model);

// Whether a layer (MTP layers follow the others) has experts or one dense MLP.
bool is_moe_layer(const ModelConfig& config, int64_t layer);

class Checkpoint {
  public:
    explicit Checkpoint(const std::filesystem::path& model);

    const ModelConfig& config() const { return info_.config; }
    const ModelWeights& weights() const { return weights_; }
    const ModelInfo& info() const { return info_; }

    // Reads a byte of every page of the bound tensors.
    void load_weights() const;

  private:
    friend class CheckpointBinder;

    std::vector<SafetensorsFile> files_;
    AlignedBuffer copies_;                         // unaligned tensors, norms widened to fp32
    std::vector<std::span<const uint8_t>> bound_;  // the tensors in use, where the files have them
    ModelWeights weights_;
    ModelInfo info_;
};

}  // namespace dsa
