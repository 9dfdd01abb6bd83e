// Calls on sessions that collide: a second thread, callbacks, cancellation, a closed engine,
// objects that were moved from. After each the session goes on with the same bits.

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <stdexcept>
#include <thread>

#include "dsa/engine.h"
#include "testing/expect_error.h"
#include "testing/small_checkpoint.h"

namespace dsa {
namespace {

using testing::expect_error;

constexpr int64_t kChunk = 16;

class SessionCalls : public testing::SmallCheckpoint {
  protected:
    // The logits behind ids(n), from a session that nothing ever disturbed.
    std::vector<float> undisturbed(size_t n) const {
        Session s = engine_.new_session();
        s.prefill(ids(n));
        return {s.logits().begin(), s.logits().end()};
    }
    // Completes what `session` has of ids(n) and compares.
    void expect_same_bits(Session& session, size_t n) const {
        session.take_turn(ids(n));
        const std::vector<float> expected = undisturbed(n);
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), session.logits().begin(),
                               session.logits().end()));
    }

    Engine engine_{folder_->path(), {.threads = 2, .context_length = 512, .prefill_chunk = kChunk}};
};

TEST_F(SessionCalls, ASecondCallIsRefused) {
    Session session = engine_.new_session();
    int refused = 0;
    const auto try_all = [&] {
        const auto busy = [&](const std::function<void()>& call) {
            expect_error(call, ErrorCode::kBusy, {"in a call already"});
            ++refused;
        };
        busy([&] { session.decode(1); });
        busy([&] { session.prefill(ids(2)); });
        busy([&] { session.take_turn(ids(2)); });
        busy([&] { session.rewind(0); });
        busy([&] { session.generate({}); });
    };
    session.prefill(ids(40), {.on_progress = [&](int64_t done, int64_t) {
                        if (done == kChunk) try_all();                        // out of the callback
                        if (done == 2 * kChunk) std::thread(try_all).join();  // a second thread
                        return true;
                    }});
    EXPECT_EQ(refused, 10);
    EXPECT_EQ(session.length(), 40);
    expect_same_bits(session, 60);
}

TEST_F(SessionCalls, APrefillIsCancelledBetweenChunks) {
    Session session = engine_.new_session();
    const PrefillOptions cancels = {.on_progress = [&](int64_t done, int64_t) {
        if (done == 2 * kChunk) session.cancel();
        return true;
    }};
    expect_error([&] { session.prefill(ids(100), cancels); }, ErrorCode::kCancelled, {"cancelled"});
    EXPECT_EQ(session.length(), 2 * kChunk);
    expect_same_bits(session, 100);
    session.rewind(0);
    expect_error([&] { session.take_turn(ids(100), cancels); }, ErrorCode::kCancelled,
                 {"cancelled"});
    expect_same_bits(session, 100);
}

TEST_F(SessionCalls, APrefillIsCancelledFromAnotherThread) {
    const Engine whole(folder_->path(), {.threads = 2, .context_length = 512});  // one chunk
    Session session = whole.new_session();
    for (int round = 0; round < 5; ++round) {
        std::atomic<bool> ended{false};
        std::latch begun(2);
        std::thread other([&] {
            begun.arrive_and_wait();
            while (!ended.load()) session.cancel();
        });
        begun.arrive_and_wait();
        // The flag is raised again and again, so one of the layers sees it.
        expect_error([&] { session.prefill(ids(500)); }, ErrorCode::kCancelled, {"cancelled"});
        ended.store(true);
        other.join();
        EXPECT_EQ(session.length(), 0);
    }
    expect_same_bits(session, 500);
}

TEST_F(SessionCalls, CancelWithoutACallDoesNothing) {
    Session session = engine_.new_session();
    session.cancel();
    EXPECT_EQ(session.prefill(ids(40)), 40);
    session.cancel();
    EXPECT_EQ(session.generate({.max_tokens = 3, .ignore_eos = true}).ids.size(), 3U);
}

TEST_F(SessionCalls, GenerationIsCancelled) {
    Session session = engine_.new_session();
    session.prefill(ids(40));
    int shown = 0;
    const GenerateResult result =
        session.generate({.ignore_eos = true}, [&](const GeneratedToken&) {
            if (++shown == 3) std::thread([&] { session.cancel(); }).join();
            return true;
        });
    EXPECT_EQ(result.reason, StopReason::kCancelled);
    EXPECT_EQ(result.ids.size(), 3U);
    EXPECT_EQ(session.length(), 43);  // what was shown is in the session
    EXPECT_FALSE(session.logits().empty());
    EXPECT_EQ(session.generate({.max_tokens = 2, .ignore_eos = true}).reason,
              StopReason::kMaxTokens);
}

TEST_F(SessionCalls, WhatACallbackThrowsComesOut) {
    Session session = engine_.new_session();
    session.prefill(ids(40));
    EXPECT_THROW(session.generate(
                     {.ignore_eos = true},
                     [](const GeneratedToken&) -> bool { throw std::logic_error("of the host"); }),
                 std::logic_error);
    EXPECT_EQ(session.length(), 40);
    expect_same_bits(session, 60);
}

TEST_F(SessionCalls, AClosedEngineEndsItsSessions) {
    const Engine engine(folder_->path(), {.context_length = 512, .prefill_chunk = kChunk});
    Session idle = engine.new_session();
    idle.prefill(ids(20));
    Session writing = engine.new_session();
    writing.prefill(ids(20));
    Session reading = engine.new_session();
    expect_error(
        [&] {
            reading.prefill(ids(100), {.on_progress = [&](int64_t done, int64_t) {
                                if (done == 2 * kChunk) engine.close();
                                return true;
                            }});
        },
        ErrorCode::kClosed, {"closed"});
    EXPECT_EQ(reading.length(), 2 * kChunk);
    expect_error([&] { writing.generate({}); }, ErrorCode::kClosed, {"closed"});
    expect_error([&] { idle.decode(1); }, ErrorCode::kClosed, {"closed"});
    expect_error([&] { idle.take_turn(ids(10)); }, ErrorCode::kClosed, {"closed"});
    expect_error([&] { engine.new_session(); }, ErrorCode::kClosed, {"closed"});
    EXPECT_EQ(writing.length(), 20);
    EXPECT_EQ(writing.logits().size(), 301U);
    engine.close();  // again
}

TEST_F(SessionCalls, ObjectsThatWereMovedFromAreRefused) {
    Session session = engine_.new_session();
    Session taken = std::move(session);
    // NOLINTBEGIN(bugprone-use-after-move): the subject of the test
    const auto refused = [](const std::function<void()>& call) {
        expect_error(call, ErrorCode::kInvalidArgument, {"moved from"});
    };
    refused([&] { session.tokens(); });
    refused([&] { session.logits(); });
    refused([&] { session.length(); });
    refused([&] { session.context_length(); });
    refused([&] { session.prefill(ids(2)); });
    refused([&] { session.take_turn(ids(2)); });
    refused([&] { session.decode(1); });
    refused([&] { session.generate({}); });
    refused([&] { session.rewind(0); });
    refused([&] { session.cancel(); });
    Engine engine(folder_->path(), {.context_length = 64});
    const Engine other = std::move(engine);
    refused([&] { engine.info(); });
    refused([&] { engine.plan(); });
    refused([&] { engine.options(); });
    refused([&] { engine.warnings(); });
    refused([&] { engine.tokenizer(); });
    refused([&] { engine.has_tokenizer(); });
    refused([&] { engine.new_session(); });
    refused([&] { engine.close(); });
    // NOLINTEND(bugprone-use-after-move)
    taken.prefill(ids(20));
    EXPECT_EQ(taken.length(), 20);
}

}  // namespace
}  // namespace dsa
