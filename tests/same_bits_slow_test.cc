// The same bits on dsa-mini where tokens are selected (2300 of a long text, 2048 read): from chunks
// of 512 with 2 threads, one axis at a time, on every ISA but `portable`; and the whole product of
// axes on tiny-planted, on every ISA.

#include <gtest/gtest.h>

#include "testing/golden.h"
#include "testing/same_bits.h"

namespace dsa {
namespace {

using testing::BitsModel;
using testing::BitsWay;
using testing::GoldenCase;

const GoldenCase& golden() {
    static const GoldenCase c = testing::load_golden("dsa-mini/recall-3000");
    return c;
}

std::vector<BitsModel> vector_models() {
    std::vector<Isa> isas = supported_isas();
    isas.erase(isas.begin());  // portable
    return testing::bits_models(golden().model, isas);
}

class SameBitsMini : public ::testing::TestWithParam<BitsModel> {};
INSTANTIATE_TEST_SUITE_P(All, SameBitsMini, ::testing::ValuesIn(vector_models()),
                         [](const auto& param) { return testing::bits_model_name(param.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SameBitsMini);

TEST_P(SameBitsMini, OneAxisAtATime) {
    const auto ids = std::span(golden().input_ids).first(2300);
    const std::vector<float> start =
        testing::logits_of(GetParam(), {.chunk = 512, .threads = 2}, ids);
    const BitsWay ways[] = {
        {.chunk = 1},
        {.chunk = 7},
        {.chunk = 64},
        {.chunk = 0},
        {.chunk = 512, .threads = 1},
        {.chunk = 512, .threads = 3},
        {.decode = true},
        {.chunk = 512, .interleaved = true},
    };
    for (const BitsWay& way : ways)
        testing::expect_same_bits(testing::logits_of(GetParam(), way, ids), start, std::ssize(ids),
                                  way.name());
}

class SameBitsTiny : public ::testing::TestWithParam<BitsModel> {};
INSTANTIATE_TEST_SUITE_P(All, SameBitsTiny,
                         ::testing::ValuesIn(testing::bits_models(
                             testing::load_golden("tiny-planted").model, supported_isas())),
                         [](const auto& param) { return testing::bits_model_name(param.param); });

TEST_P(SameBitsTiny, WholeProduct) {
    const GoldenCase tiny = testing::load_golden("tiny-planted");
    const int thread_counts[] = {1, 2, 3};
    testing::expect_whole_product(GetParam(), tiny.input_ids, thread_counts);
}

}  // namespace
}  // namespace dsa
