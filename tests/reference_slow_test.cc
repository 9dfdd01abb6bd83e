// The reference forward pass on dsa-mini behind 8931 tokens.

#include <gtest/gtest.h>

#include <cmath>

#include "testing/golden.h"
#include "testing/reference_run.h"

namespace dsa {
namespace {

TEST(SlowReference, Recall9000EqualsTheOracle) {
    const testing::ReferenceRun run =
        testing::run_reference(testing::load_golden("dsa-mini/recall-9000"), {});
    EXPECT_LE(run.logits_max_abs, 6e-3);
    EXPECT_LE(run.hidden, 1e-4);
    EXPECT_LE(std::abs(run.nll_difference), 1e-4);
    EXPECT_EQ(run.argmax_right, run.steps);
    // The oracle is fp32 itself. One position of one set (layer 5, row 8940) lies 2.5e-5 from the
    // k-th score, and a forward pass in float64 throughout selects as this one does.
    EXPECT_LE(run.topk.differ, 1);
    EXPECT_LE(run.topk.farthest, 5e-5);
    EXPECT_GE(run.topk.recall(), 0.9999);
}

}  // namespace
}  // namespace dsa
