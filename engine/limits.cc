#include "dsa/limits.h"

#include <algorithm>

#include "attention/attention.h"
#include "engine/engine_state.h"
#include "gemm/limits.h"
#include "indexer/indexer.h"

namespace dsa {
namespace {

// Of a measurement: long enough to be what decoding some tokens, or a prefill, can have throughout.
constexpr double kReadSeconds = 0.2;
constexpr double kMultiplySeconds = 0.05;

}  // namespace

struct LimitMeter::State {
    std::shared_ptr<const EngineState> engine;
    Arena none;
    gemm::LimitMeter meter;
};

LimitMeter::LimitMeter(const Engine& engine)
    : state_(new State{engine.state_, Arena(), gemm::LimitMeter()}) {}
LimitMeter::~LimitMeter() = default;

void LimitMeter::measure() {
    Exec exec{state_->engine->pool, state_->none, state_->engine->isa};
    const ThreadPool::Lease lease(exec.pool);
    for (int i = 0; i < 2; ++i) {
        state_->meter.read_round(exec, kReadSeconds);
        state_->meter.multiply_round(exec, kMultiplySeconds);
    }
}

MachineLimits LimitMeter::best() const {
    return state_->meter.limits();
}

TokenCost token_cost(const ModelInfo& info, int64_t depth) {
    const ModelConfig& c = info.config;
    const auto layers = static_cast<double>(c.num_hidden_layers);
    const auto seen = static_cast<double>(depth + 1);
    const auto read = std::min(seen, static_cast<double>(c.index_topk));
    TokenCost cost;
    cost.weight_bytes = static_cast<double>(info.active_bytes);
    cost.cache_bytes = layers * (read * static_cast<double>(attention::kRecordBytes) +
                                 seen * static_cast<double>(indexer::kKeyBytes));
    cost.head_ops = 2.0 * static_cast<double>(c.vocab_size * c.hidden_size);
    cost.linear_ops = 2.0 * static_cast<double>(info.active_parameters) - cost.head_ops;
    const auto heads = static_cast<double>(c.num_attention_heads);
    const auto attention_dims =
        static_cast<double>(attention::kKeyDim + attention::kLatentDim);  // logits and values
    cost.context_ops = 2.0 * layers *
                       (heads * attention_dims * read +
                        static_cast<double>(c.index_n_heads * indexer::kHeadDim) * seen);
    return cost;
}

}  // namespace dsa
