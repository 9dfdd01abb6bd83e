#pragma once
// What an engine owns and its sessions share. Immutable but for the thread pool, which is safe to
// share, and the mark that the engine was closed.

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/isa.h"
#include "base/thread_pool.h"
#include "dsa/engine.h"
#include "engine/checkpoint.h"
#include "engine/model.h"
#include "engine/reference.h"

namespace dsa {

struct EngineState {
    Checkpoint checkpoint;
    EngineOptions options;  // resolved
    MemoryPlan plan;
    Isa isa;
    std::unique_ptr<const Tokenizer> tokenizer;
    mutable ThreadPool pool;
    mutable std::atomic<bool> closed{false};
    // One of the two forward passes.
    std::optional<Model> model;
    std::optional<ReferenceModel> reference;

    EngineState(const std::filesystem::path& folder, const EngineOptions& requested);
};

// Options with threads and context length filled in. Throws for values out of range.
EngineOptions resolve_options(const ModelConfig& config, const EngineOptions& requested);

}  // namespace dsa
