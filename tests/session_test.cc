// The public API on small checkpoints: sessions, turns, cancellation, errors, traces.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "dsa/chat.h"
#include "dsa/engine.h"
#include "testing/expect_error.h"
#include "testing/small_checkpoint.h"

namespace dsa {
namespace {

class SessionTest : public testing::SmallCheckpoint {
  protected:
    static Engine open(EngineOptions options = {}) {
        if (options.context_length == 0) options.context_length = 256;
        return Engine(folder_->path(), options);
    }
    static std::vector<float> copy(std::span<const float> x) { return {x.begin(), x.end()}; }
};

// The kernels promise the same bits (same_bits_test.cc), the reference does not.
TEST_F(SessionTest, TheReferencePrefillsAndDecodesAlike) {
    const Engine engine = open({.reference = true});
    Session whole = engine.new_session();
    EXPECT_TRUE(whole.logits().empty());
    const std::vector<int32_t> prompt = ids(100);
    EXPECT_EQ(whole.prefill(prompt), 100);
    Session steps = engine.new_session();
    for (const int32_t id : prompt) steps.decode(id);
    ASSERT_EQ(whole.logits().size(), 301U);
    for (size_t i = 0; i < 301; ++i) ASSERT_NEAR(whole.logits()[i], steps.logits()[i], 1e-4);
}

TEST_F(SessionTest, RewindForgetsAndRecomputesTheSame) {
    const Engine engine = open();
    Session session = engine.new_session();
    const std::vector<int32_t> prompt = ids(90);
    session.prefill(prompt);
    const std::vector<float> before = copy(session.logits());
    session.prefill(ids(40, 99));
    session.rewind(60);
    EXPECT_EQ(session.length(), 60);
    EXPECT_TRUE(session.logits().empty());
    session.prefill(std::span(prompt).subspan(60));
    EXPECT_EQ(copy(session.logits()), before);
    testing::expect_error([&] { session.rewind(91); }, ErrorCode::kInvalidArgument,
                          {"rewind", "91", "90"});
    testing::expect_error([&] { session.rewind(-1); }, ErrorCode::kInvalidArgument,
                          {"rewind", "-1"});
}

TEST_F(SessionTest, ATurnKeepsTheLongestCommonPrefix) {
    const Engine engine = open();
    Session session = engine.new_session();
    std::vector<int32_t> turn = ids(80);
    EXPECT_EQ(session.take_turn(turn), 0);
    const std::vector<float> first = copy(session.logits());
    EXPECT_EQ(session.take_turn(turn), 80);  // nothing to do
    EXPECT_EQ(copy(session.logits()), first);

    session.decode(3);
    EXPECT_EQ(session.take_turn(turn), 79);  // a cut reply: one token for the logits
    EXPECT_EQ(copy(session.logits()), first);

    std::vector<int32_t> other = turn;
    other[50] = (other[50] + 1) % 301;
    EXPECT_EQ(session.take_turn(other), 50);
    EXPECT_EQ(session.length(), 80);
    EXPECT_NE(copy(session.logits()), first);
    EXPECT_TRUE(std::equal(other.begin(), other.end(), session.tokens().begin()));
    EXPECT_EQ(session.take_turn(turn), 50);
    EXPECT_EQ(copy(session.logits()), first);
}

TEST_F(SessionTest, WrongCallsLeaveTheSessionAsItWas) {
    const Engine engine = open();
    Session session = engine.new_session();
    session.prefill(ids(200));
    const std::vector<float> before = copy(session.logits());
    testing::expect_error([&] { session.prefill(ids(57)); }, ErrorCode::kContextOverflow,
                          {"57", "200", "256"});
    testing::expect_error([&] { session.take_turn(ids(257)); }, ErrorCode::kContextOverflow,
                          {"257", "256"});
    const std::vector<int32_t> bad = {1, 301};
    testing::expect_error([&] { session.prefill(bad); }, ErrorCode::kInvalidArgument,
                          {"token 1", "301", "300"});
    testing::expect_error([&] { session.decode(-4); }, ErrorCode::kInvalidArgument, {"-4"});
    testing::expect_error([&] { session.take_turn({}); }, ErrorCode::kInvalidArgument,
                          {"no tokens"});
    EXPECT_EQ(session.length(), 200);
    EXPECT_EQ(copy(session.logits()), before);

    Session fresh = engine.new_session();
    testing::expect_error([&] { fresh.generate({}); }, ErrorCode::kInvalidArgument, {"no logits"});
    testing::expect_error([&] { engine.tokenizer(); }, ErrorCode::kNotFound, {"tokenizer.model"});
}

TEST_F(SessionTest, ProgressCanStopAPrefill) {
    const Engine engine = open({.prefill_chunk = 32});
    Session session = engine.new_session();
    std::vector<int64_t> seen;
    PrefillOptions options;
    options.on_progress = [&](int64_t done, int64_t total) {
        EXPECT_EQ(total, 100);
        seen.push_back(done);
        return done < 64;
    };
    EXPECT_EQ(session.prefill(ids(100), options), 64);
    EXPECT_EQ(seen, (std::vector<int64_t>{32, 64}));
    EXPECT_EQ(session.length(), 64);
    EXPECT_TRUE(session.logits().empty());
    Session straight = engine.new_session();
    straight.prefill(ids(100));
    session.prefill(std::span<const int32_t>(ids(100)).subspan(64));
    EXPECT_EQ(copy(session.logits()), copy(straight.logits()));
}

TEST_F(SessionTest, GenerateStopsForEachReason) {
    const Engine engine = open();
    Session session = engine.new_session();
    session.prefill(ids(20));
    const GenerateResult five = session.generate({.max_tokens = 5, .ignore_eos = true});
    EXPECT_EQ(five.reason, StopReason::kMaxTokens);
    EXPECT_EQ(five.ids.size(), 5U);
    EXPECT_EQ(session.length(), 25);
    EXPECT_TRUE(std::equal(five.ids.begin(), five.ids.end(), session.tokens().begin() + 20));

    session.rewind(19);
    session.prefill(std::span<const int32_t>(ids(20)).subspan(19));
    const GenerateResult ended = session.generate({.max_tokens = 50, .stop_ids = {five.ids[2]}});
    EXPECT_EQ(ended.reason, StopReason::kEndToken);
    EXPECT_EQ(ended.ids.back(), five.ids[2]);
    EXPECT_EQ(session.tokens().back(), five.ids[2]);

    int calls = 0;
    const GenerateResult cut =
        session.generate({.ignore_eos = true}, [&](const GeneratedToken&) { return ++calls < 3; });
    EXPECT_EQ(cut.reason, StopReason::kCallback);
    EXPECT_EQ(cut.ids.size(), 3U);
    EXPECT_TRUE(std::equal(cut.ids.rbegin(), cut.ids.rend(), session.tokens().rbegin()));

    const GenerateResult full = session.generate({.ignore_eos = true});
    EXPECT_EQ(full.reason, StopReason::kContextFull);
    EXPECT_EQ(session.length(), 256);
}

TEST_F(SessionTest, SameSeedSameText) {
    const Engine engine = open();
    const auto run = [&](uint64_t seed) {
        Session session = engine.new_session();
        session.prefill(ids(10));
        return session
            .generate({.sampling = {.temperature = 1.0, .top_p = 0.95, .seed = seed},
                       .max_tokens = 40,
                       .ignore_eos = true})
            .ids;
    };
    EXPECT_EQ(run(1), run(1));
    EXPECT_NE(run(1), run(2));
}

TEST_F(SessionTest, TraceGivesRowsWhateverTheChunk) {
    TraceRequest request;
    request.rows = {0, 30, 31, 77, 99, 150};  // the last lies beyond the call
    request.logits = request.hidden = request.topk = request.experts = request.index_scores = true;
    std::vector<Trace> traces;
    for (const int64_t chunk : {1, 32, 128}) {
        const Engine engine = open({.prefill_chunk = chunk});
        Session session = engine.new_session();
        Trace& trace = traces.emplace_back();
        session.prefill(ids(100), {.trace_request = &request, .trace = &trace});
        EXPECT_EQ(trace.rows, (std::vector<int64_t>{0, 30, 31, 77, 99}));
        ASSERT_EQ(trace.logits.size(), 5U * 301);
        EXPECT_TRUE(
            std::equal(session.logits().begin(), session.logits().end(), trace.logits.end() - 301));
        ASSERT_EQ(trace.hidden.size(), 3U);
        EXPECT_EQ(trace.hidden[2].size(), 5U * 320);
        ASSERT_EQ(trace.experts.size(), 2U);
        EXPECT_EQ(trace.experts[1].size(), 5U * 2);
        for (const auto& layer : trace.topk) {
            ASSERT_EQ(layer.size(), 5U);
            EXPECT_EQ(layer[0], std::vector<int32_t>{0});
            EXPECT_EQ(layer[2].size(), 32U);
            EXPECT_EQ(layer[4].size(), 48U);  // index_topk
        }
        for (const auto& layer : trace.index_scores) {
            EXPECT_TRUE(layer[2].empty());  // sees fewer than index_topk
            EXPECT_EQ(layer[3].size(), 78U);
        }
    }
    for (const Trace& t : traces) {
        EXPECT_EQ(t.logits, traces[0].logits);
        EXPECT_EQ(t.hidden, traces[0].hidden);
        EXPECT_EQ(t.topk, traces[0].topk);
        EXPECT_EQ(t.experts, traces[0].experts);
        EXPECT_EQ(t.index_scores, traces[0].index_scores);
    }
}

TEST_F(SessionTest, SelectionIsTheTopOfTheScores) {
    const Engine engine = open();
    Session session = engine.new_session();
    TraceRequest request;
    request.rows = {99};
    request.topk = request.index_scores = true;
    Trace trace;
    session.prefill(ids(100), {.trace_request = &request, .trace = &trace});
    for (size_t l = 0; l < 3; ++l) {
        const std::vector<float>& scores = trace.index_scores[l][0];
        std::vector<int32_t> order(scores.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
        });
        order.resize(48);
        std::sort(order.begin(), order.end());
        EXPECT_EQ(trace.topk[l][0], order);
    }
}

TEST_F(SessionTest, ASessionOutlivesItsEngine) {
    auto engine = std::make_unique<Engine>(folder_->path(), EngineOptions{.context_length = 64});
    Session session = engine->new_session();
    engine.reset();
    session.prefill(ids(20));
    EXPECT_TRUE(std::isfinite(session.logits()[0]));
}

TEST_F(SessionTest, TheMemoryPlanIsKeptAndRefusedInNumbers) {
    const ModelInfo info = inspect_model(folder_->path());
    const MemoryPlan plan = plan_memory(info, {.context_length = 256});
    EXPECT_EQ(plan.context_length, 256);
    EXPECT_GT(plan.weights, 0);
    EXPECT_EQ(plan.kv_cache, 256 / 64 * 3 * (64 * 656 + 64 * 132));
    EXPECT_GT(plan.scratch, 0);
    EXPECT_GT(plan.process, 0);
    EXPECT_GT(plan_memory(info, {.threads = 64, .context_length = 256}).process, plan.process);
    EXPECT_EQ(open().plan().total(), plan.total());
    EXPECT_GT(plan_memory(info, {.context_length = 4096}).total(), plan.total());
    const int64_t limit = plan.total() - 1;
    testing::expect_error([&] { open({.memory_limit = limit}); }, ErrorCode::kOutOfMemory,
                          {"needs", "MiB", "256 tokens", "process", "allowed"});
    const Engine opened = open({.memory_limit = plan.total()});
    opened.load_weights();
    testing::expect_error([&] { open({.context_length = 5000}); }, ErrorCode::kContextOverflow,
                          {"5000", "4096", "max_position_embeddings"});
    testing::expect_error([&] { open({.threads = -1}); }, ErrorCode::kInvalidArgument,
                          {"threads", "-1"});
    testing::expect_error([&] { open({.isa = "sse9"}); }, ErrorCode::kInvalidArgument,
                          {"sse9", "portable"});
    testing::expect_error([&] { Engine("no/such/model"); }, ErrorCode::kNotFound,
                          {"no/such/model"});
}

}  // namespace
}  // namespace dsa
