#pragma once
// What the machine can do at most, measured, and what a token costs at least: the limits beside
// which a benchmark reports tokens per second.

#include <cstdint>
#include <memory>

#include "dsa/engine.h"
#include "dsa/machine_limits.h"

namespace dsa {

// Measures what an engine's threads can do with its ISA, in rounds that may alternate with the work
// they are the limit of; keeps the best so far. Takes 512 MiB for as long as it lives; a round
// takes a second.
class LimitMeter {
  public:
    explicit LimitMeter(const Engine& engine);
    ~LimitMeter();
    LimitMeter(const LimitMeter&) = delete;
    LimitMeter& operator=(const LimitMeter&) = delete;

    void measure();
    MachineLimits best() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// What one token needs at least behind `depth` others: weights that are read (in a batch they are
// shared), cache records and index keys; operations of the products with weights of the layers, of
// the head (only where logits are wanted: of a prefill's tokens the last), and of scores and
// attention (these are never int8).
struct TokenCost {
    double weight_bytes = 0;
    double cache_bytes = 0;
    double linear_ops = 0;
    double head_ops = 0;
    double context_ops = 0;
};
TokenCost token_cost(const ModelInfo& info, int64_t depth);

}  // namespace dsa
