#include "dsa/engine.h"

#include <cstdio>

#include "base/check.h"
#include "base/memory_info.h"
#include "engine/engine_state.h"

namespace dsa {
namespace {

std::string mib(int64_t bytes) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.1f MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
    return text;
}

void check_memory(const MemoryPlan& plan, int64_t limit) {
    const int64_t allowed = limit > 0 ? limit : available_memory();
    if (plan.total() <= allowed) return;
    throw_error(ErrorCode::kOutOfMemory, "needs ", mib(plan.total()), " (weights ",
                mib(plan.weights + plan.copies), ", caches for ", plan.context_length, " tokens ",
                mib(plan.kv_cache), ", scratch ", mib(plan.scratch + plan.tables),
                ", the process itself ", mib(plan.process), "), but only ", mib(allowed),
                limit > 0 ? " are allowed" : " are available");
}

// Refuses a model that does not fit, before the large allocations that follow.
MemoryPlan checked_plan(const ModelInfo& info, const EngineOptions& options) {
    const MemoryPlan plan = plan_memory(info, options);
    check_memory(plan, options.memory_limit);
    return plan;
}

gemm::Precision gemm_precision(Precision precision) {
    switch (precision) {
        case Precision::kFp8:
            return gemm::Precision::kFp8;
        case Precision::kInt8:
            return gemm::Precision::kInt8;
        case Precision::kBf16:
            break;
    }
    return gemm::Precision::kBf16;
}

}  // namespace

EngineState::EngineState(const std::filesystem::path& folder, const EngineOptions& requested)
    : checkpoint(folder),
      options(resolve_options(checkpoint.config(), requested)),
      plan(checked_plan(checkpoint.info(), options)),
      isa(resolve_isa(requested.isa)),
      tokenizer(open_tokenizer(folder, checkpoint.config().vocab_size)),
      pool(options.threads) {
    options.isa = to_string(isa);
    if (options.reference) {
        reference.emplace(checkpoint, options.reference_steps, options.context_length,
                          options.threads);
    } else {
        model.emplace(checkpoint, gemm_precision(options.precision), options.context_length);
    }
}

Engine::Engine(const std::filesystem::path& model, const EngineOptions& options)
    : state_(std::make_shared<const EngineState>(model, options)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

const EngineState& Engine::state() const {
    DSA_CHECK(state_ != nullptr, "this engine was moved from");
    return *state_;
}

void Engine::close() const {
    state().closed.store(true);
}

const ModelInfo& Engine::info() const {
    return state().checkpoint.info();
}
const MemoryPlan& Engine::plan() const {
    return state().plan;
}
const EngineOptions& Engine::options() const {
    return state().options;
}
void Engine::load_weights() const {
    state().checkpoint.load_weights();
}
const std::vector<std::string>& Engine::warnings() const {
    return info().warnings;
}
bool Engine::has_tokenizer() const {
    return state().tokenizer != nullptr;
}
const Tokenizer& Engine::tokenizer() const {
    if (!has_tokenizer())
        throw_error(ErrorCode::kNotFound, info().path,
                    ": no tokenizer files (expected tokenizer.model); only token ids can be used");
    return *state().tokenizer;
}

ModelInfo inspect_model(const std::filesystem::path& model) {
    return Checkpoint(model).info();
}

}  // namespace dsa
