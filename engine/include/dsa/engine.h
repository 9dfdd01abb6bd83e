#pragma once
// The engine: a model folder opened for inference.
//
//   dsa::Engine engine("models/dsa-mini", {.context_length = 8192});
//   dsa::Session session = engine.new_session();
//   session.prefill(engine.tokenizer().encode("Once upon a time"));
//   session.generate({.max_tokens = 64}, [](const dsa::GeneratedToken& t) {
//       std::cout << t.text << std::flush;
//       return true;
//   });
//
// Engine is immutable once open and may be shared by any number of threads; a Session is one
// timeline for one thread at a time. Errors are thrown as dsa::Error. The library prints nothing,
// reads no environment but DSA_ISA, and neither installs signal handlers nor ends the program.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dsa/error.h"
#include "dsa/model_info.h"
#include "dsa/session.h"
#include "dsa/tokenizer.h"

namespace dsa {

// What happens to activations that meet FP8 weights (docs/numerics.md).
enum class Precision {
    kBf16,  // bf16, not quantised: closest to the original
    kFp8,   // e4m3, one scale per 128 values: DeepSeek's own inference
    kInt8,  // int8, one scale per 128 values, weights requantised on the fly: fastest with VNNI
};

// Steps of the reference path that imitate low precision; all off is the fp32 model.
struct ReferenceSteps {
    bool act = false;       // quantise activations that meet FP8 weights
    bool kv = false;        // quantise the cached latents
    bool index = false;     // quantise index queries and keys
    bool hadamard = false;  // rotate index queries and keys
    bool bf16 = false;      // round to bf16 between operators
};

struct EngineOptions {
    int threads = 0;              // 0: one a core that this process may use
    int64_t context_length = 0;   // tokens a session holds; 0: default_context_length(config)
    int64_t prefill_chunk = 512;  // tokens that go through the model at once
    // "", "portable", "avx2", "avx512", "avx512_bf16", "amx"; "": DSA_ISA or the best
    std::string isa{};
    Precision precision = Precision::kBf16;
    bool reference = false;  // run the plain reference forward pass instead of the kernels
    ReferenceSteps reference_steps{};
    int64_t memory_limit = 0;  // bytes that may be used; 0: what the system and cgroup allow
};

class Engine {
  public:
    // Maps and checks the checkpoint, then refuses with kOutOfMemory if the plan of one session
    // does not fit. `model` is a folder in the HuggingFace layout.
    explicit Engine(const std::filesystem::path& model, const EngineOptions& options = {});
    ~Engine();
    Engine(Engine&&) noexcept;
    Engine& operator=(Engine&&) noexcept;

    const ModelInfo& info() const;
    const MemoryPlan& plan() const;
    // Options as resolved: threads, context length and ISA filled in.
    const EngineOptions& options() const;
    // Tensors that the checkpoint has and the model does not use, and the like.
    const std::vector<std::string>& warnings() const;
    // Throws kNotFound if the folder has no tokenizer files.
    const Tokenizer& tokenizer() const;
    bool has_tokenizer() const;

    // Reads every page of the weights into memory now. Without it each comes from the disk when a
    // token first needs it.
    void load_weights() const;

    // The session keeps the engine's data alive, so that it may outlive this object.
    Session new_session() const;

    // Ends all sessions, on whatever threads they are: a call in progress stops with kClosed before
    // its next chunk or token, later ones throw kClosed. What was computed can still be read.
    void close() const;

  private:
    const struct EngineState& state() const;
    friend class LimitMeter;
    std::shared_ptr<const struct EngineState> state_;
};

// Reads and validates a checkpoint without opening it for inference; needs little memory.
ModelInfo inspect_model(const std::filesystem::path& model);

// What Engine(model, options) with one session would use. Throws kContextOverflow where
// options.context_length is more than the model was made for.
MemoryPlan plan_memory(const ModelInfo& info, const EngineOptions& options);

}  // namespace dsa
