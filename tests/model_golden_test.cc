// The forward pass over the kernels on dsa-mini against the oracle, in every precision.

#include <gtest/gtest.h>

#include "testing/golden_run.h"

namespace dsa {
namespace {

using testing::GoldenCase;

void check(gemm::Precision precision, const testing::MiniBounds& bounds) {
    testing::check_mini_cases(bounds, [&](const GoldenCase& golden) {
        return testing::run_cpu(golden, supported_isas().back(), precision);
    });
}

TEST(MiniModel, Bf16StaysCloseToTheOracle) {
    check(gemm::Precision::kBf16, {.kl_text = 0.002, .kl_chat = 0.009, .nll = 0.004, .argmax = 96});
}

TEST(MiniModel, Fp8StaysCloseToTheOracle) {
    check(gemm::Precision::kFp8, {.kl_text = 0.02, .kl_chat = 0.02, .nll = 0.015, .argmax = 93});
}

TEST(MiniModel, Int8StaysCloseToTheOracle) {
    check(gemm::Precision::kInt8, {.kl_text = 0.006, .kl_chat = 0.02, .nll = 0.015, .argmax = 93});
}

}  // namespace
}  // namespace dsa
