// The C interface: every wrong call is a code, and the right ones give what the C++ interface
// gives.

#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dsa/dsa.h"
#include "dsa/engine.h"
#include "testing/small_checkpoint.h"

namespace dsa {
namespace {

class CApi : public testing::SmallCheckpoint {
  protected:
    void SetUp() override {
        dsa_engine_options options{};
        options.size = sizeof(options);
        options.threads = 2;
        options.context_length = 128;
        options.prefill_chunk = 16;
        ASSERT_EQ(dsa_engine_open(folder_->path().c_str(), &options, &engine_), DSA_OK)
            << dsa_last_error();
        ASSERT_EQ(dsa_session_new(engine_, &session_), DSA_OK) << dsa_last_error();
    }
    void TearDown() override {
        dsa_session_close(session_);
        dsa_engine_close(engine_);
    }

    static dsa_status prefill(dsa_session* session, const std::vector<int32_t>& ids) {
        return dsa_session_prefill(session, ids.data(), ids.size(), nullptr, nullptr, nullptr);
    }
    static std::vector<int32_t> tokens(dsa_session* session) {
        size_t count = 0;
        dsa_session_tokens(session, nullptr, 0, &count);
        std::vector<int32_t> ids(count);
        EXPECT_EQ(dsa_session_tokens(session, ids.data(), ids.size(), &count), DSA_OK);
        return ids;
    }
    static void expect_failed(dsa_status status, dsa_status expected,
                              const std::vector<std::string>& parts) {
        EXPECT_EQ(status, expected) << dsa_last_error();
        for (const std::string& part : parts)
            EXPECT_NE(std::string(dsa_last_error()).find(part), std::string::npos)
                << dsa_last_error() << "\nlacks " << part;
    }

    dsa_engine* engine_ = nullptr;
    dsa_session* session_ = nullptr;
};

TEST_F(CApi, GivesTheLogitsAndTokensOfTheCppInterface) {
    const Engine engine(folder_->path(), {.threads = 2, .context_length = 128});
    Session session = engine.new_session();
    session.prefill(ids(40));
    size_t taken = 0;
    const auto prompt = ids(40);
    ASSERT_EQ(dsa_session_prefill(session_, prompt.data(), prompt.size(), nullptr, nullptr, &taken),
              DSA_OK);
    EXPECT_EQ(taken, 40U);
    std::vector<float> logits(301);
    size_t count = 0;
    ASSERT_EQ(dsa_session_logits(session_, logits.data(), logits.size(), &count), DSA_OK);
    ASSERT_EQ(count, 301U);
    EXPECT_TRUE(std::equal(logits.begin(), logits.end(), session.logits().begin()));

    dsa_sampling sampling{};
    sampling.size = sizeof(sampling);
    sampling.temperature = 1.0;
    sampling.seed = 7;
    dsa_generate_options options{};
    options.size = sizeof(options);
    options.sampling = &sampling;
    options.max_tokens = 10;
    options.ignore_eos = true;
    dsa_generate_result result{};
    result.size = sizeof(result);
    std::vector<int32_t> shown;
    const auto show = [](void* user, int32_t id, const char* text, size_t bytes) {
        EXPECT_EQ(std::strlen(text), bytes);
        static_cast<std::vector<int32_t>*>(user)->push_back(id);
        return true;
    };
    ASSERT_EQ(dsa_session_generate(session_, &options, show, &shown, &result), DSA_OK);
    EXPECT_EQ(result.num_tokens, 10);
    EXPECT_EQ(result.reason, DSA_STOP_MAX_TOKENS);
    const GenerateResult expected = session.generate(
        {.sampling = {.temperature = 1.0, .seed = 7}, .max_tokens = 10, .ignore_eos = true});
    EXPECT_EQ(shown, expected.ids);
    EXPECT_TRUE(std::ranges::equal(tokens(session_), session.tokens()));

    // The same, one call a token.
    dsa_session* steps = nullptr;
    dsa_sampler* sampler = nullptr;
    ASSERT_EQ(dsa_session_new(engine_, &steps), DSA_OK);
    ASSERT_EQ(dsa_sampler_new(&sampling, &sampler), DSA_OK);
    ASSERT_EQ(prefill(steps, prompt), DSA_OK);
    for (const int32_t id : expected.ids) {
        int32_t chosen = -1;
        ASSERT_EQ(dsa_sampler_sample(sampler, steps, &chosen), DSA_OK);
        EXPECT_EQ(chosen, id);
        ASSERT_EQ(dsa_session_decode(steps, chosen), DSA_OK);
    }
    size_t kept = 0;
    ASSERT_EQ(dsa_session_take_turn(steps, prompt.data(), 30, nullptr, nullptr, &kept), DSA_OK);
    EXPECT_EQ(kept, 29U);
    ASSERT_EQ(dsa_session_rewind(steps, 10), DSA_OK);
    EXPECT_EQ(tokens(steps), ids(10));
    EXPECT_EQ(dsa_sampler_close(sampler), DSA_OK);
    EXPECT_EQ(dsa_session_close(steps), DSA_OK);
}

TEST_F(CApi, TellsWhatAnEngineIs) {
    dsa_engine_info info{};
    info.size = sizeof(info);
    ASSERT_EQ(dsa_engine_get_info(engine_, &info), DSA_OK);
    EXPECT_EQ(info.vocab_size, 301);
    EXPECT_EQ(info.context_length, 128);
    EXPECT_EQ(info.num_layers, 3);
    EXPECT_EQ(info.threads, 2);
    EXPECT_FALSE(info.has_tokenizer);
    EXPECT_GT(std::strlen(info.isa), 0U);
    dsa_memory_plan plan{};
    plan.size = sizeof(plan);
    dsa_engine_options options{};
    options.size = sizeof(options);
    options.context_length = 128;
    ASSERT_EQ(dsa_plan_memory(folder_->path().c_str(), &options, &plan), DSA_OK);
    EXPECT_EQ(plan.context_length, 128);
    EXPECT_EQ(plan.total,
              plan_memory(inspect_model(folder_->path()), {.context_length = 128}).total());
    size_t count = 0;
    EXPECT_EQ(dsa_end_tokens(engine_, nullptr, 0, &count), DSA_ERROR_BUFFER_TOO_SMALL);
    EXPECT_EQ(count, 1U);
    char text[64];
    EXPECT_EQ(dsa_engine_warnings(engine_, text, sizeof(text), &count), DSA_OK);
    EXPECT_EQ(std::strlen(text) + 1, count);
    EXPECT_STREQ(dsa_version(), "0.1.0");
    EXPECT_STREQ(dsa_status_name(DSA_OK), "ok");
    EXPECT_STREQ(dsa_status_name(DSA_ERROR_CLOSED), "closed");
    EXPECT_STREQ(dsa_status_name(99), "unknown status");
}

TEST_F(CApi, RefusesNullAndForeignHandles) {
    int32_t id = 0;
    size_t count = 0;
    dsa_session* session = nullptr;
    dsa_sampler* sampler = nullptr;
    const auto invalid = [](dsa_status status, const char* what) {
        expect_failed(status, DSA_ERROR_INVALID_ARGUMENT, {what});
    };
    invalid(dsa_engine_open(nullptr, nullptr, &engine_), "model is NULL");
    invalid(dsa_engine_open("x", nullptr, nullptr), "engine is NULL");
    invalid(dsa_engine_close(nullptr), "engine is NULL");
    invalid(dsa_engine_get_info(engine_, nullptr), "info is NULL");
    invalid(dsa_session_new(nullptr, &session), "engine is NULL");
    invalid(dsa_session_new(engine_, nullptr), "session is NULL");
    invalid(dsa_session_close(nullptr), "session is NULL");
    invalid(dsa_session_cancel(nullptr), "session is NULL");
    invalid(dsa_session_decode(nullptr, 1), "session is NULL");
    invalid(dsa_session_generate(nullptr, nullptr, nullptr, nullptr, nullptr), "session is NULL");
    invalid(dsa_session_prefill(session_, nullptr, 3, nullptr, nullptr, nullptr), "ids is NULL");
    invalid(dsa_session_prefill(session_, &id, SIZE_MAX, nullptr, nullptr, nullptr), "elements");
    invalid(dsa_session_tokens(session_, &id, 1, nullptr), "count is NULL");
    invalid(dsa_session_tokens(session_, nullptr, 1, &count), "buffer is NULL");
    invalid(dsa_sampler_new(nullptr, nullptr), "sampler is NULL");
    invalid(dsa_sampler_sample(nullptr, session_, &id), "sampler is NULL");
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    auto* any_number = reinterpret_cast<dsa_engine*>(uintptr_t{0xdeadbeef});
    // A handle of another kind, any number, and one that was closed.
    invalid(dsa_session_decode(reinterpret_cast<dsa_session*>(engine_), 1), "not an open handle");
    invalid(dsa_engine_close(reinterpret_cast<dsa_engine*>(session_)), "not an open handle");
    invalid(dsa_engine_close(any_number), "not an open handle");
    ASSERT_EQ(dsa_sampler_new(nullptr, &sampler), DSA_OK);
    ASSERT_EQ(dsa_sampler_close(sampler), DSA_OK);
    invalid(dsa_sampler_close(sampler), "not an open handle");
    ASSERT_EQ(dsa_session_close(session_), DSA_OK);
    invalid(dsa_session_decode(session_, 1), "not an open handle");
    invalid(dsa_session_close(session_), "not an open handle");
}

TEST_F(CApi, RefusesWhatTheModelCannotTake) {
    ASSERT_EQ(prefill(session_, ids(100)), DSA_OK);
    expect_failed(prefill(session_, ids(29)), DSA_ERROR_CONTEXT_OVERFLOW, {"29", "100", "128"});
    expect_failed(dsa_session_decode(session_, 301), DSA_ERROR_INVALID_ARGUMENT, {"301", "300"});
    expect_failed(dsa_session_decode(session_, -1), DSA_ERROR_INVALID_ARGUMENT, {"-1"});
    expect_failed(dsa_session_rewind(session_, 101), DSA_ERROR_INVALID_ARGUMENT, {"101", "100"});
    expect_failed(dsa_session_rewind(session_, SIZE_MAX), DSA_ERROR_INVALID_ARGUMENT, {"rewind"});
    EXPECT_EQ(tokens(session_), ids(100));
    ASSERT_EQ(dsa_session_rewind(session_, 0), DSA_OK);
    int32_t id = 0;
    dsa_sampler* sampler = nullptr;
    ASSERT_EQ(dsa_sampler_new(nullptr, &sampler), DSA_OK);
    expect_failed(dsa_sampler_sample(sampler, session_, &id), DSA_ERROR_INVALID_ARGUMENT, {});
    dsa_sampler_close(sampler);
    expect_failed(dsa_session_generate(session_, nullptr, nullptr, nullptr, nullptr),
                  DSA_ERROR_INVALID_ARGUMENT, {"no logits"});
    size_t count = 0;
    expect_failed(dsa_tokenize(engine_, "x", 1, &id, 1, &count), DSA_ERROR_NOT_FOUND,
                  {"tokenizer"});
    dsa_engine* none = nullptr;
    expect_failed(dsa_engine_open("no/such/model", nullptr, &none), DSA_ERROR_NOT_FOUND,
                  {"no/such/model"});
    dsa_engine_options options{};
    options.size = sizeof(options);
    options.memory_limit = 1000;
    expect_failed(dsa_engine_open(folder_->path().c_str(), &options, &none),
                  DSA_ERROR_OUT_OF_MEMORY, {"needs", "allowed"});
    options = {};
    options.size = sizeof(options);
    options.precision = 9;
    expect_failed(dsa_engine_open(folder_->path().c_str(), &options, &none),
                  DSA_ERROR_INVALID_ARGUMENT, {"precision", "9"});
    EXPECT_EQ(none, nullptr);
}

TEST_F(CApi, StructsGrow) {
    struct Newer {
        dsa_engine_options known;
        int64_t more;
    } newer{};
    newer.known.size = sizeof(newer);
    newer.known.context_length = 64;
    dsa_engine* engine = nullptr;
    ASSERT_EQ(dsa_engine_open(folder_->path().c_str(), &newer.known, &engine), DSA_OK);
    dsa_engine_close(engine);
    newer.more = 1;
    expect_failed(dsa_engine_open(folder_->path().c_str(), &newer.known, &engine),
                  DSA_ERROR_UNSUPPORTED, {"options", "version"});
    newer.known.size = 0;
    expect_failed(dsa_engine_open(folder_->path().c_str(), &newer.known, &engine),
                  DSA_ERROR_INVALID_ARGUMENT, {"options.size is 0"});
    // An older caller gets the fields that it knows, and no byte more.
    dsa_engine_info info{};
    std::memset(&info, 0x55, sizeof(info));
    info.size = offsetof(dsa_engine_info, num_layers);
    ASSERT_EQ(dsa_engine_get_info(engine_, &info), DSA_OK);
    EXPECT_EQ(info.context_length, 128);
    EXPECT_EQ(info.num_layers, 0x5555555555555555);
    info.size = 3;
    expect_failed(dsa_engine_get_info(engine_, &info), DSA_ERROR_INVALID_ARGUMENT, {"info.size"});
    dsa_generate_result result{};
    ASSERT_EQ(prefill(session_, ids(20)), DSA_OK);
    expect_failed(dsa_session_generate(session_, nullptr, nullptr, nullptr, &result),
                  DSA_ERROR_INVALID_ARGUMENT, {"result.size"});
    EXPECT_EQ(tokens(session_).size(), 20U);  // nothing was generated
}

struct Callback {
    dsa_session* session = nullptr;
    std::vector<dsa_status> seen;
};

TEST_F(CApi, ASecondThreadIsRefusedAndMayCancel) {
    Callback c{session_, {}};
    const auto progress = [](void* user, int64_t done, int64_t) {
        auto& callback = *static_cast<Callback*>(user);
        const auto try_calls = [&callback] {
            size_t count = 0;
            callback.seen.push_back(dsa_session_decode(callback.session, 1));
            callback.seen.push_back(dsa_session_tokens(callback.session, nullptr, 0, &count));
            EXPECT_NE(std::string(dsa_last_error()).find("in a call"), std::string::npos);
        };
        try_calls();
        std::thread(try_calls).join();
        if (done == 32) {
            std::thread([&] { EXPECT_EQ(dsa_session_cancel(callback.session), DSA_OK); }).join();
        }
        return true;
    };
    const auto prompt = ids(60);
    size_t taken = 77;
    expect_failed(dsa_session_prefill(session_, prompt.data(), prompt.size(), progress, &c, &taken),
                  DSA_ERROR_CANCELLED, {});
    EXPECT_EQ(taken, 77U);
    EXPECT_EQ(c.seen, std::vector<dsa_status>(8, DSA_ERROR_BUSY));
    EXPECT_EQ(tokens(session_), ids(32));
}

TEST_F(CApi, ClosingMayHappenAnyTime) {
    // The session's handle, in its own callback: the call ends, then the memory goes.
    ASSERT_EQ(prefill(session_, ids(20)), DSA_OK);
    dsa_generate_result result{};
    result.size = sizeof(result);
    const auto close_session = [](void* user, int32_t, const char*, size_t) {
        EXPECT_EQ(dsa_session_close(static_cast<dsa_session*>(user)), DSA_OK);
        return true;
    };
    EXPECT_EQ(dsa_session_generate(session_, nullptr, close_session, session_, &result), DSA_OK);
    EXPECT_EQ(result.reason, DSA_STOP_CANCELLED);
    EXPECT_EQ(result.num_tokens, 1);
    // The engine, with a session open.
    ASSERT_EQ(dsa_session_new(engine_, &session_), DSA_OK);
    ASSERT_EQ(prefill(session_, ids(20)), DSA_OK);
    ASSERT_EQ(dsa_engine_close(engine_), DSA_OK);
    expect_failed(dsa_session_decode(session_, 1), DSA_ERROR_CLOSED, {"closed"});
    expect_failed(dsa_session_generate(session_, nullptr, nullptr, nullptr, nullptr),
                  DSA_ERROR_CLOSED, {"closed"});
    expect_failed(dsa_session_new(engine_, &session_), DSA_ERROR_INVALID_ARGUMENT,
                  {"not an open handle"});
    EXPECT_EQ(tokens(session_), ids(20));
    EXPECT_EQ(dsa_session_close(session_), DSA_OK);
}

TEST_F(CApi, NoExceptionCrosses) {
    ASSERT_EQ(prefill(session_, ids(20)), DSA_OK);
    const auto throws = [](void*, int32_t, const char*, size_t) -> bool {
        throw std::logic_error("of the host");
    };
    expect_failed(dsa_session_generate(session_, nullptr, throws, nullptr, nullptr),
                  DSA_ERROR_INTERNAL, {"of the host"});
    EXPECT_EQ(tokens(session_), ids(20));
    // The last error is a thread's own.
    std::thread([] { EXPECT_STREQ(dsa_last_error(), ""); }).join();
}

}  // namespace
}  // namespace dsa
