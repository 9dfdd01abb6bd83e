// Speed of the built-in model behind a long prompt: the prompt at once, one token a step, and
// decode behind it, in one run. Chunked prefill must pay, and long contexts must stay usable.

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "base/isa.h"
#include "dsa/engine.h"
#include "testing/golden.h"

namespace dsa {
namespace {

double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class Speed : public ::testing::TestWithParam<Isa> {};

TEST_P(Speed, LongPromptAndDecodeBehindIt) {
    const testing::GoldenCase golden = testing::load_golden("dsa-mini/recall-9000");
    const Engine engine(golden.model, {.threads = 2, .isa = to_string(GetParam())});
    // Before and after the steps, so that a busy neighbour does not decide the ratio alone.
    Session first = engine.new_session();
    double prefill = seconds_of([&] { first.prefill(golden.input_ids); }) / 2.0;
    Session stepped = engine.new_session();
    const double steps = seconds_of([&] {
        for (const int32_t id : golden.input_ids) stepped.decode(id);
    });
    Session at_once = engine.new_session();
    prefill += seconds_of([&] { at_once.prefill(golden.input_ids); }) / 2.0;
    const double decode = seconds_of([&] {
        for (const int32_t id : golden.greedy_ids) at_once.decode(id);
    });
    const auto n = static_cast<double>(golden.greedy_ids.size());
    std::printf(
        "%s: %ld tokens at once %.2f s (%.0f tokens/s), one a step %.2f s, ratio %.2f; decode "
        "behind them %.1f tokens/s\n",
        to_string(GetParam()), static_cast<long>(golden.S), prefill,
        static_cast<double>(golden.S) / prefill, steps, steps / prefill, n / decode);
    EXPECT_LE(prefill, 45.0);
    EXPECT_GE(steps / prefill, 3.0);
    EXPECT_GE(n / decode, 60.0);
}

// Portable makes no promise of speed, and with AVX2 attention and indexer are portable still.
std::vector<Isa> fast_isas() {
    std::vector<Isa> isas = supported_isas();
    std::erase_if(isas, [](Isa isa) { return isa < Isa::kAvx512; });
    return isas;
}
INSTANTIATE_TEST_SUITE_P(All, Speed, ::testing::ValuesIn(fast_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Speed);

}  // namespace
}  // namespace dsa
