// 200 turns of eight sessions with the built-in model: memory stays where it was after 50 turns,
// and each session says what it says alone.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <string>

#include "dsa/chat.h"
#include "dsa/engine.h"
#include "testing/concurrent_turns.h"

namespace dsa {
namespace {

int64_t resident_kib() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("VmRSS:")) return std::stol(line.substr(6));
    return 0;
}

TEST(Threads, MemoryIsFlatAndEverySessionSaysWhatItSaysAlone) {
    const Engine engine(DSA_MODELS "/dsa-mini", {.threads = 2, .context_length = 1024});
    engine.load_weights();  // else the pages of rare tokens and experts come one by one
    testing::ConcurrentTurns spec;
    spec.reply_tokens = 24;
    spec.turns_a_conversation = 3;  // each session has been through one within 50 turns
    spec.prompt = [&](int session, int turn) {
        return encode_chat(engine.tokenizer(),
                           {{Role::kUser, "Question " + std::to_string(session * 100 + turn) +
                                              ": what is this?"}});
    };
    std::atomic<int64_t> after_50{0};
    std::atomic<int64_t> after_200{0};
    spec.on_turn = [&](int done) {
        if (done == 50) after_50 = resident_kib();
        if (done == 200) after_200 = resident_kib();
    };
    const testing::TurnsOutcome together = run_together(engine, spec);
    std::printf("VmRSS after 50 turns %ld KiB, after 200 turns %ld KiB; %d replies cancelled\n",
                static_cast<long>(after_50), static_cast<long>(after_200), together.cancelled);
    EXPECT_GT(together.cancelled, 0);
    ASSERT_GT(after_50.load(), 0);
    EXPECT_NEAR(static_cast<double>(after_200) / static_cast<double>(after_50), 1.0, 0.02);
    const testing::TurnsOutcome alone = run_alone(engine, spec);
    for (size_t s = 0; s < alone.replies.size(); ++s)
        EXPECT_EQ(engine.tokenizer().decode(together.replies[s]),
                  engine.tokenizer().decode(alone.replies[s]));
    EXPECT_EQ(together.replies, alone.replies);
}

}  // namespace
}  // namespace dsa
