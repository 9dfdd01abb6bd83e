#pragma once
// What a session holds, and the calls on it without their guard (session.cc): for one thread.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "base/arena.h"
#include "dsa/session.h"
#include "engine/engine_state.h"
#include "engine/kv_cache.h"
#include "engine/reference.h"

namespace dsa {

struct SessionState {
    std::shared_ptr<const EngineState> engine;
    std::variant<KvCache, ReferenceCache> cache;
    Arena scratch;
    std::vector<int32_t> tokens;
    std::vector<float> logits;  // [vocab_size]
    bool has_logits = false;
    std::atomic<bool> in_call{false};    // a guard of calls, see session.cc
    std::atomic<bool> cancelled{false};  // asked of the call in progress

    explicit SessionState(std::shared_ptr<const EngineState> e);

    const ModelConfig& config() const { return engine->checkpoint.config(); }
    int64_t context_length() const { return engine->options.context_length; }
    int64_t length() const { return static_cast<int64_t>(tokens.size()); }
    std::span<const float> current_logits() const;
    void check_ids(std::span<const int32_t> ids, int64_t position) const;
    void check_open() const;

    void forward(std::span<const int32_t> ids, std::span<const int64_t> logit_rows, float* out,
                 ForwardTrace* trace, const std::atomic<bool>* stop);
    // Takes in one chunk of ids that were checked; last: with logits.
    void take_chunk(std::span<const int32_t> ids, bool last, const PrefillOptions& options,
                    const std::atomic<bool>* stop);
    void take_traced_chunk(std::span<const int32_t> ids, bool last, const TraceRequest& request,
                           Trace& trace, const std::atomic<bool>* stop);
    int64_t take(std::span<const int32_t> ids, const PrefillOptions& options);
    int64_t take_turn(std::span<const int32_t> ids, const PrefillOptions& options);
    void rewind(int64_t n);
    GenerateResult generate(const GenerateOptions& options,
                            const std::function<bool(const GeneratedToken&)>& on_token);
};

}  // namespace dsa
