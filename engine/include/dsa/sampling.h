#pragma once
// Choosing the next token from logits.
//
// Order of the steps: repetition penalty (Keskar et al. 2019: a seen token's positive logit is
// divided by it, a negative one multiplied), temperature, top-k, top-p, min-p, then one draw. Ties
// in any ordering go to the lower token id.

#include <cstdint>
#include <span>
#include <vector>

namespace dsa {

struct SamplingParams {
    double temperature = 0.0;         // 0: greedy
    int64_t top_k = 0;                // keep the k likeliest; 0: off
    double top_p = 1.0;               // keep the fewest that reach this mass; 1: off
    double min_p = 0.0;               // keep p >= min_p * p_max; 0: off
    double repetition_penalty = 1.0;  // 1: off
    uint64_t seed = 0;
};

// Holds the generator's state and work space; one a generation, for one thread.
class Sampler {
  public:
    // Throws kInvalidArgument for a value out of range, naming it.
    explicit Sampler(const SamplingParams& params);

    // logits [vocab_size]; seen: token ids that the repetition penalty applies to (duplicates
    // allowed). NaN counts as -inf. Throws kInvalidArgument if no logit is finite or if there are
    // none.
    int32_t sample(std::span<const float> logits, std::span<const int32_t> seen);

  private:
    double uniform();  // [0, 1)

    SamplingParams params_;
    uint64_t state_;
    std::vector<float> adjusted_;
    std::vector<int32_t> order_;
    std::vector<double> probs_;
};

}  // namespace dsa
