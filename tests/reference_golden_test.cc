// The reference forward pass on dsa-mini against the fp32 oracle: short prompts, and 2930 tokens,
// where selection is at work.

#include <gtest/gtest.h>

#include <cmath>

#include "testing/golden.h"
#include "testing/golden_run.h"

namespace dsa {
namespace {

using testing::GoldenRun;
using testing::load_golden;
using testing::run_reference;

constexpr ReferenceSteps kAllSteps{
    .act = true, .kv = true, .index = true, .hadamard = true, .bf16 = true};

class MiniReference : public ::testing::TestWithParam<const char*> {};

TEST_P(MiniReference, EqualsTheOracle) {
    const GoldenRun run = run_reference(load_golden(GetParam()), {});
    EXPECT_LE(run.logits_max_abs, 1e-3);
    EXPECT_LE(run.hidden, 1e-4);
    EXPECT_LE(std::abs(run.nll_difference), 1e-5);
    EXPECT_EQ(run.argmax_right, run.steps);
    EXPECT_EQ(run.topk.differ, 0);
    EXPECT_GE(run.topk.recall(), 0.9999);
}

INSTANTIATE_TEST_SUITE_P(Cases, MiniReference,
                         ::testing::Values("dsa-mini/chat", "dsa-mini/chat-turns",
                                           "dsa-mini/text-1500", "dsa-mini/recall-3000"),
                         [](const auto& instance) {
                             std::string name = instance.param;
                             for (char& c : name) c = std::isalnum(c) ? c : '_';
                             return name;
                         });

TEST(MiniReferenceAllSteps, StaysCloseToTheOracle) {
    int64_t steps = 0;
    int64_t right = 0;
    for (const char* name : {"dsa-mini/chat", "dsa-mini/text-1500", "dsa-mini/recall-3000"}) {
        const GoldenRun run = run_reference(load_golden(name), kAllSteps);
        EXPECT_LE(run.kl, 0.02) << name;
        EXPECT_LE(std::abs(run.nll_difference), 0.02) << name;
        EXPECT_GE(run.topk.recall(), 0.98) << name;
        steps += run.steps;
        right += run.argmax_right;
    }
    EXPECT_GE(right, steps - 3);
}

}  // namespace
}  // namespace dsa
