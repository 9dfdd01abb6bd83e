// The same bits whatever the chunk, the threads, the neighbours, by prefill or by decode: the whole
// product on tiny-planted, in every precision, on the best ISA.

#include <gtest/gtest.h>

#include "testing/golden.h"
#include "testing/same_bits.h"

namespace dsa {
namespace {

using testing::BitsModel;
using testing::GoldenCase;
using testing::load_golden;
using testing::logits_of;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// The others are in same_bits_slow_test.cc.
const Isa kBest[] = {supported_isas().back()};

class SameBits : public ::testing::TestWithParam<BitsModel> {};
INSTANTIATE_TEST_SUITE_P(Tiny, SameBits,
                         ::testing::ValuesIn(testing::bits_models(load_golden("tiny-planted").model,
                                                                  kBest)),
                         [](const auto& param) { return testing::bits_model_name(param.param); });

TEST_P(SameBits, WholeProduct) {
    const GoldenCase golden = load_golden("tiny-planted");
    std::span<const int32_t> ids = golden.input_ids;
    std::vector<int> thread_counts = {1, 2, 3};
    if (kSanitized) {  // for its memory accesses alone; 80 are more than the 64 that are selected
        ids = ids.first(80);
        thread_counts = {2};
    }
    testing::expect_whole_product(GetParam(), ids, thread_counts);
}

// The comparison would see it: another token in front changes what follows, and rows differ.
TEST_P(SameBits, OtherTokensGiveOtherBits) {
    const GoldenCase golden = load_golden("tiny-planted");
    std::vector<int32_t> ids(golden.input_ids.begin(), golden.input_ids.begin() + 80);
    const std::vector<float> before = logits_of(GetParam(), {}, ids);
    ids[0] = ids[0] == 5 ? 6 : 5;
    EXPECT_NE(logits_of(GetParam(), {}, ids), before);
    EXPECT_NE(std::vector<float>(before.end() - golden.V, before.end()),
              std::vector<float>(before.end() - 2 * golden.V, before.end() - golden.V));
}

}  // namespace
}  // namespace dsa
