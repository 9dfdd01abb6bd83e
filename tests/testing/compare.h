#pragma once
// How outputs are compared with golden ones (tests/golden/README.md).

#include <cstdint>
#include <span>

namespace dsa::testing {

// Infinite where a difference is not a number.
double max_abs_difference(std::span<const float> x, std::span<const float> oracle);
// ||x - oracle|| / ||oracle||
double relative_l2(std::span<const float> x, std::span<const float> oracle);
// Mean over rows of `vocab` logits of KL(softmax(oracle) || softmax(x)).
double mean_kl(std::span<const float> x, std::span<const float> oracle, int64_t vocab);
// -log softmax(logits)[id]
double token_nll(std::span<const float> logits, int32_t id);
// The first of the largest.
int32_t argmax(std::span<const float> logits);

// Selected positions against the oracle's, row by row.
struct TopkComparison {
    int64_t rows = 0;    // that see more than k positions; the rest must be equal, is not counted
    int64_t differ = 0;  // sets that differ in more than near ties (rows not counted included)
    int64_t near_ties = 0;  // positions that differ with a score within 1e-5 (relative) of the k-th
    double farthest =
        0.0;             // largest relative distance from the k-th score of a position that differs
    int64_t shared = 0;  // positions that both have
    int64_t expected = 0;  // positions of the oracle

    // A row that sees `visible` positions. Sets ascending; oracle [k] with -1 in front where fewer
    // are visible. scores: of all visible positions, of the run that is compared; empty: no
    // allowance for near ties.
    void add(int64_t visible, std::span<const int32_t> selected, std::span<const int32_t> oracle,
             std::span<const float> scores);
    double recall() const {
        return expected == 0 ? 1.0 : static_cast<double>(shared) / static_cast<double>(expected);
    }
};

}  // namespace dsa::testing
