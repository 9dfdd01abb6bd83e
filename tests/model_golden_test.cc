// The forward pass over the kernels on dsa-mini against the oracle, in both precisions.

#include <gtest/gtest.h>

#include <cmath>

#include "dsa/tokenizer.h"
#include "testing/golden_run.h"

namespace dsa {
namespace {

using gemm::Precision;

struct Bounds {
    double kl_text, kl_chat, nll;
    int64_t argmax;
};

class MiniModel : public ::testing::TestWithParam<Precision> {};
INSTANTIATE_TEST_SUITE_P(All, MiniModel, ::testing::Values(Precision::kBf16, Precision::kFp8),
                         [](const auto& precision) {
                             return precision.param == Precision::kFp8 ? "fp8" : "bf16";
                         });

TEST_P(MiniModel, StaysCloseToTheOracle) {
    const Bounds bounds = GetParam() == Precision::kFp8 ? Bounds{0.02, 0.02, 0.015, 93}
                                                        : Bounds{0.002, 0.009, 0.004, 96};
    int64_t right = 0;
    int64_t steps = 0;
    for (const std::string name :
         {"chat", "chat-turns", "text-1500", "recall-3000", "recall-9000"}) {
        SCOPED_TRACE(name);
        const testing::GoldenRun run = testing::run_cpu(testing::load_golden("dsa-mini/" + name),
                                                        supported_isas().back(), GetParam());
        const bool is_chat = name.starts_with("chat");
        EXPECT_LE(run.kl, is_chat ? bounds.kl_chat : bounds.kl_text);
        if (name == "text-1500" || name == "recall-3000") {
            EXPECT_LE(std::abs(run.nll_difference), bounds.nll);
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
    EXPECT_GE(right, bounds.argmax);
}

}  // namespace
}  // namespace dsa
