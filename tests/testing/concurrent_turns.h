#pragma once
// Many conversations at once on one engine, each session on a thread of its own, some replies
// cancelled and asked for again. What a session says must not depend on its neighbours.

#include <cstdint>
#include <functional>
#include <vector>

#include "dsa/engine.h"

namespace dsa::testing {

struct ConcurrentTurns {
    int sessions = 8;
    int turns = 25;                // of each session
    int turns_a_conversation = 5;  // then it begins anew
    int64_t reply_tokens = 16;
    // Tokens that open turn `turn` of session `session`, behind those of the conversation so far.
    std::function<std::vector<int32_t>(int session, int turn)> prompt;
    // Called on a session's thread after each turn with the number of turns of all sessions.
    std::function<void(int turns_done)> on_turn = [](int) {};
};

struct TurnsOutcome {
    std::vector<std::vector<int32_t>> replies;  // [sessions] tokens of all turns, one after another
    int cancelled = 0;                          // replies that were cut and asked for again
};

// All sessions at once, with cancellation from further threads.
TurnsOutcome run_together(const Engine& engine, const ConcurrentTurns& spec);
// One session after the other, undisturbed.
TurnsOutcome run_alone(const Engine& engine, const ConcurrentTurns& spec);

}  // namespace dsa::testing
