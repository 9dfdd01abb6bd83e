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
    int64_t right = 0;
    int64_t steps = 0;
    for (const std::string name :
         {"chat", "chat-turns", "text-1500", "recall-3000", "recall-9000"}) {
        SCOPED_TRACE(name);
        const testing::GoldenRun run =
            testing::run_reference(testing::load_golden("dsa-mini/" + name), kAll);
        EXPECT_LE(run.kl, 0.02);
        if (name == "text-1500" || name == "recall-3000") {
            EXPECT_LE(std::abs(run.nll_difference), 0.015);
        }
        if (name == "recall-3000") {
            EXPECT_GE(run.topk.recall(), 0.98);
        }
        if (name == "recall-9000") {
            EXPECT_GE(run.topk.recall(), 0.97);
        }
        if (name != "chat" && name != "text-1500") {
            EXPECT_EQ(run.argmax_right, run.steps) << "the answer differs";
        }
        right += run.argmax_right;
        steps += run.steps;
    }
    EXPECT_EQ(steps, 97);
    EXPECT_GE(right, 93);
}

}  // namespace
}  // namespace dsa
