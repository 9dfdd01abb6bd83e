// Eight host threads with a session each on one engine, a small model: for the thread sanitizer,
// and each session says what it says alone.

#include <gtest/gtest.h>

#include "dsa/engine.h"
#include "testing/concurrent_turns.h"

namespace dsa {
namespace {

TEST(Threads, SessionsDoNotDisturbEachOther) {
    const Engine engine(DSA_TEST_DATA "/golden/checkpoints/tiny-planted",
                        {.threads = 2, .context_length = 256, .prefill_chunk = 32});
    const auto vocab = static_cast<int>(engine.info().config.vocab_size);
    testing::ConcurrentTurns spec;
    spec.reply_tokens = 6;
    spec.prompt = [&](int session, int turn) {
        std::vector<int32_t> ids(static_cast<size_t>(5 + turn % 7));
        for (int i = 0; int32_t & id : ids) {
            id = (37 * session + 11 * turn + 5 * i * i) % vocab;
            ++i;
        }
        return ids;
    };
    const testing::TurnsOutcome together = run_together(engine, spec);
    EXPECT_GT(together.cancelled, 0);
    EXPECT_EQ(together.replies, run_alone(engine, spec).replies);
}

}  // namespace
}  // namespace dsa
