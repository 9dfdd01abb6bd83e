#pragma once
// `dsa info --measure`: opens a model as any program would, fills its context, and compares what
// the process has resident with the memory plan. Linux only (/proc).

#include <cstdint>

#include "dsa/engine.h"

namespace dsa::app {

struct Measurement {
    EngineOptions options;  // resolved
    MemoryPlan plan;
    double open_seconds = 0;    // Engine's constructor
    double load_seconds = 0;    // load_weights
    double prompt_seconds = 0;  // a prompt of random tokens as long as the context
    // Bytes resident when the engine was open and its weights read: pages of the model's files, and
    // the rest.
    int64_t weights = 0;
    int64_t opened = 0;
    // What the session added to that: caches, scratch, logits, its tokens.
    int64_t session = 0;
    int64_t peak = 0;  // VmHWM

    double ratio() const { return static_cast<double>(peak) / static_cast<double>(plan.total()); }
};

// Throws kUnsupported where the system does not say what is resident.
Measurement measure(const std::filesystem::path& model, const EngineOptions& options);

}  // namespace dsa::app
