// The reference forward pass on dsa-mini behind 8931 tokens.

#include <gtest/gtest.h>

#include <cmath>

#include "testing/golden.h"
#include "testing/golden_run.h"

namespace dsa {
namespace {

TEST(SlowReference, Recall9000EqualsTheOracle) {
    const testing::GoldenRun run =
        testing::run_reference(testing::load_golden("dsa-mini/recall-9000"), {});
    EXPECT_LE(run.logits_max_abs, 1e-3);
    EXPECT_LE(run.hidden, 1e-4);
    EXPECT_LE(std::abs(run.nll_difference), 1e-4);
    EXPECT_EQ(run.argmax_right, run.steps);
    EXPECT_EQ(run.topk.differ, 0);
    EXPECT_GE(run.topk.recall(), 0.9999);
}

// All low-precision steps on: what fp8 inference makes of the model.
TEST(SlowReference, AllStepsStayCloseToTheOracle) {
    constexpr ReferenceSteps kAll{
        .act = true, .kv = true, .index = true, .hadamard = true, .bf16 = true};
    testing::check_mini_cases(
        {.kl_text = 0.02, .kl_chat = 0.02, .nll = 0.015, .argmax = 93},
        [&](const testing::GoldenCase& golden) { return testing::run_reference(golden, kAll); });
}

}  // namespace
}  // namespace dsa
