#pragma once
// Model presets (configs/models/NAME.yaml) and checkpoints with random weights made from them.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace dsa::app {

// config.json of a preset: a name, or the path of a YAML file. Throws kNotFound naming the presets
// there are, kInvalidArgument for a file that is not YAML.
nlohmann::ordered_json read_preset(const std::string& preset);

// Writes config.json and model.safetensors with random FP8 weights (block scales; the embedding in
// BF16, norms in F32) into a folder that must not exist or be empty. The same seed gives the same
// bytes.
void write_synthetic_checkpoint(const nlohmann::ordered_json& config,
                                const std::filesystem::path& folder, uint64_t seed);

// A synthetic checkpoint of a preset for the life of this object, in the system's temporary folder.
class SyntheticCheckpoint {
  public:
    explicit SyntheticCheckpoint(const std::string& preset);
    ~SyntheticCheckpoint();
    SyntheticCheckpoint(const SyntheticCheckpoint&) = delete;
    SyntheticCheckpoint& operator=(const SyntheticCheckpoint&) = delete;

    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

}  // namespace dsa::app
