#include "testing/concurrent_turns.h"

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace dsa::testing {
namespace {

class Conversation {
  public:
    Conversation(const Engine& engine, const ConcurrentTurns& spec, int index)
        : spec_(spec), index_(index), session_(engine.new_session()) {}

    // Returns whether a reply was cut. `cancel`: cancel the first try after so many yields.
    bool take_turn(int turn, int cancel_after) {
        if (turn % spec_.turns_a_conversation == 0) history_.clear();
        const std::vector<int32_t> prompt = spec_.prompt(index_, turn);
        history_.insert(history_.end(), prompt.begin(), prompt.end());
        const bool cut = cancel_after > 0 && !try_cancelled(turn, cancel_after);
        if (cancel_after == 0 || cut) reply(turn);
        const auto tokens = session_.tokens();
        replies.insert(replies.end(), tokens.begin() + static_cast<int64_t>(history_.size()),
                       tokens.end());
        history_.assign(tokens.begin(), tokens.end());
        return cut;
    }

    std::vector<int32_t> replies;

  private:
    StopReason reply(int turn) {
        session_.take_turn(history_);
        return session_
            .generate({.sampling = {.temperature = 0.9, .seed = static_cast<uint64_t>(turn)},
                       .max_tokens = spec_.reply_tokens,
                       .ignore_eos = true})
            .reason;
    }
    // Whether the reply was complete before the cancellation came.
    bool try_cancelled(int turn, int cancel_after) {
        std::thread canceller([&] {
            for (int i = 0; i < cancel_after; ++i) std::this_thread::yield();
            session_.cancel();
        });
        bool complete = false;
        try {
            complete = reply(turn) != StopReason::kCancelled;
        } catch (const Error& error) {
            if (error.code() != ErrorCode::kCancelled) {
                canceller.join();
                throw;
            }
        }
        canceller.join();
        return complete;
    }

    const ConcurrentTurns& spec_;
    int index_;
    Session session_;
    std::vector<int32_t> history_;
};

}  // namespace

TurnsOutcome run_together(const Engine& engine, const ConcurrentTurns& spec) {
    TurnsOutcome outcome;
    // All sessions live to the end of the last one.
    std::vector<std::unique_ptr<Conversation>> conversations;
    conversations.reserve(static_cast<size_t>(spec.sessions));
    for (int index = 0; index < spec.sessions; ++index)
        conversations.push_back(std::make_unique<Conversation>(engine, spec, index));
    std::atomic<int> done{0};
    std::atomic<int> cancelled{0};
    std::exception_ptr failure;
    std::mutex failure_mutex;
    std::vector<std::thread> hosts;
    hosts.reserve(static_cast<size_t>(spec.sessions));
    for (int index = 0; index < spec.sessions; ++index)
        hosts.emplace_back([&, index] {
            try {
                Conversation& conversation = *conversations[static_cast<size_t>(index)];
                for (int turn = 0; turn < spec.turns; ++turn) {
                    // Every third turn or so, after a different while each time.
                    const int wait =
                        (turn + index) % 3 == 1 ? 1 + 61 * turn * (index + 1) % 997 : 0;
                    if (conversation.take_turn(turn, wait)) ++cancelled;
                    spec.on_turn(++done);
                }
            } catch (...) {
                const std::lock_guard lock(failure_mutex);
                failure = std::current_exception();
            }
        });
    for (std::thread& host : hosts) host.join();
    if (failure) std::rethrow_exception(failure);
    for (const auto& conversation : conversations)
        outcome.replies.push_back(std::move(conversation->replies));
    outcome.cancelled = cancelled.load();
    return outcome;
}

TurnsOutcome run_alone(const Engine& engine, const ConcurrentTurns& spec) {
    TurnsOutcome outcome;
    for (int index = 0; index < spec.sessions; ++index) {
        Conversation conversation(engine, spec, index);
        for (int turn = 0; turn < spec.turns; ++turn) conversation.take_turn(turn, 0);
        outcome.replies.push_back(std::move(conversation.replies));
    }
    return outcome;
}

}  // namespace dsa::testing
