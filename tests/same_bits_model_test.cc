// The same bits on dsa-mini where tokens are selected (2300 of a long text, 2048 read): two chunk
// sizes on the best ISA. The other axes are in same_bits_slow_test.cc.

#include <gtest/gtest.h>

#include "testing/golden.h"
#include "testing/same_bits.h"

namespace dsa {
namespace {

TEST(SameBitsMini, Chunk64IsTheWhole) {
    const testing::GoldenCase golden = testing::load_golden("dsa-mini/recall-3000");
    const auto ids = std::span(golden.input_ids).first(2300);
    const Isa best[] = {supported_isas().back()};
    for (const testing::BitsModel& model : testing::bits_models(golden.model, best)) {
        const std::vector<float> whole = testing::logits_of(model, {.chunk = 0}, ids);
        testing::expect_same_bits(testing::logits_of(model, {.chunk = 64}, ids), whole,
                                  std::ssize(ids), testing::bits_model_name(model));
    }
}

}  // namespace
}  // namespace dsa
