#pragma once
// Runs a golden case through the reference forward pass.

#include <cstdint>
#include <vector>

#include "engine/reference.h"
#include "testing/compare.h"
#include "testing/golden.h"

namespace dsa::testing {

struct ReferenceRun {
    std::vector<float> logits;  // [R, V], kept rows
    ForwardTrace trace;         // of the kept rows, then of the decode steps
    double logits_max_abs = 0.0;
    double logits_rel_l2 = 0.0;
    double kl = 0.0;
    double hidden = 0.0;  // relative L2 of the worst layer
    double nll_difference = 0.0;
    double index_scores = 0.0;  // relative L2 of the worst layer, where the case has scores
    TopkComparison topk;        // prompt and decode steps
    int64_t expert_rows = 0;    // compared
    int64_t expert_rows_differ = 0;
    int64_t steps = 0;
    int64_t argmax_right = 0;
    double decode_max_abs = 0.0;  // where the case has logits of the steps
};

// Prompt in calls of at most 512 tokens, then the oracle's greedy tokens one by one. Prints one
// line.
ReferenceRun run_reference(const GoldenCase& golden, const ReferenceSteps& steps, int threads = 2);

}  // namespace dsa::testing
