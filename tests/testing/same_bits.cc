#include "testing/same_bits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace dsa::testing {
namespace {

constexpr int64_t kOtherLead = 3;  // tokens that the other session is ahead

class Run {
  public:
    Run(const Engine& engine, const BitsWay& way, std::span<const int32_t> ids)
        : session_(engine.new_session()), way_(way), ids_(ids) {
        request_.all_logits = true;
    }

    bool done() const { return session_.length() == std::ssize(ids_); }

    // The next n tokens.
    void take(int64_t n) {
        const auto begin = static_cast<size_t>(session_.length());
        const auto piece =
            ids_.subspan(begin, std::min(static_cast<size_t>(n), ids_.size() - begin));
        if (way_.decode) {
            for (const int32_t id : piece) {
                const std::span<const float> row = session_.decode(id);
                trace_.logits.insert(trace_.logits.end(), row.begin(), row.end());
            }
        } else {
            session_.prefill(piece, {.trace_request = &request_, .trace = &trace_});
        }
        const std::span<const float> own = session_.logits();
        ASSERT_GE(trace_.logits.size(), own.size());
        EXPECT_TRUE(std::equal(own.begin(), own.end(), trace_.logits.end() - std::ssize(own)))
            << way_.name() << ": the session's logits are not those of its last token";
    }

    std::vector<float> logits() { return std::move(trace_.logits); }

  private:
    Session session_;
    const BitsWay& way_;
    std::span<const int32_t> ids_;
    TraceRequest request_;
    Trace trace_;
};

std::vector<float> interleaved(const Engine& engine, const BitsWay& way,
                               std::span<const int32_t> ids, int64_t chunk) {
    const std::vector<int32_t> other_ids(ids.rbegin(), ids.rbegin() + std::ssize(ids) / 3);
    Run run(engine, way, ids);
    Run other(engine, way, other_ids);
    other.take(kOtherLead);
    while (!run.done() || !other.done()) {
        if (!run.done()) run.take(chunk);
        if (!other.done()) other.take(chunk);
    }
    Run other_alone(engine, way, other_ids);
    other_alone.take(std::ssize(other_ids));
    std::vector<float> logits = run.logits();
    const std::vector<float> others = other.logits();
    expect_same_bits(others, other_alone.logits(), std::ssize(other_ids),
                     way.name() + ", the other one");
    EXPECT_NE(std::memcmp(others.data(), logits.data(), others.size() * sizeof(float)), 0);
    return logits;
}

}  // namespace

void expect_whole_product(const BitsModel& model, std::span<const int32_t> ids,
                          std::span<const int> thread_counts) {
    const std::vector<float> whole = logits_of(model, {.chunk = 0, .threads = 2}, ids);
    for (const int threads : thread_counts) {
        for (const bool interleaved : {false, true}) {
            std::vector<BitsWay> ways = {
                {.threads = threads, .decode = true, .interleaved = interleaved}};
            for (const int64_t chunk : {1, 7, 64, 512, 0})
                ways.push_back({.chunk = chunk, .threads = threads, .interleaved = interleaved});
            for (const BitsWay& way : ways)
                expect_same_bits(logits_of(model, way, ids), whole, std::ssize(ids), way.name());
        }
    }
}

std::string BitsWay::name() const {
    return (decode ? "decode" : "chunk " + (chunk == 0 ? "whole" : std::to_string(chunk))) + ", " +
           std::to_string(threads) + " threads" + (interleaved ? ", interleaved" : "");
}

std::vector<float> logits_of(const BitsModel& model, const BitsWay& way,
                             std::span<const int32_t> ids) {
    const int64_t total = std::ssize(ids);
    const int64_t chunk = way.decode ? 1 : way.chunk == 0 ? total : way.chunk;
    const Engine engine(model.folder, {.threads = way.threads,
                                       .context_length = total,
                                       .prefill_chunk = chunk,
                                       .isa = to_string(model.isa),
                                       .precision = model.precision});
    if (way.interleaved) return interleaved(engine, way, ids, chunk);
    Run run(engine, way, ids);
    run.take(total);  // the engine cuts it into chunks
    return run.logits();
}

void expect_same_bits(std::span<const float> logits, std::span<const float> expected, int64_t rows,
                      const std::string& what) {
    ASSERT_EQ(logits.size(), expected.size()) << what;
    const size_t row = logits.size() / static_cast<size_t>(rows);
    for (size_t i = 0; i < logits.size(); i += row)
        ASSERT_EQ(std::memcmp(logits.data() + i, expected.data() + i, row * sizeof(float)), 0)
            << what << ": the logits of token " << i / row << " are the first that differ";
}

std::vector<BitsModel> bits_models(const std::filesystem::path& folder, std::span<const Isa> isas) {
    std::vector<BitsModel> models;
    for (const Isa isa : isas)
        for (const Precision precision : {Precision::kBf16, Precision::kFp8, Precision::kInt8})
            models.push_back({folder, isa, precision});
    return models;
}

std::string bits_model_name(const BitsModel& model) {
    return std::string(to_string(model.isa)) + (model.precision == Precision::kFp8 ? "_fp8_path"
                                                : model.precision == Precision::kInt8
                                                    ? "_int8_path"
                                                    : "_bf16_path");
}

}  // namespace dsa::testing
