// Sampling: every filter against a naive implementation of its definition, by the frequencies of
// many draws; ties, special values, seeds, argument errors, and the cost at a full vocabulary.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dsa/error.h"
#include "dsa/sampling.h"

namespace {
int64_t allocations = 0;
}

// Counts allocations; the sanitizers bring their own operators.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
[[gnu::noinline]] void* operator new(size_t bytes) {
    ++allocations;
    if (void* memory = std::malloc(bytes)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
#endif

namespace dsa {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The definition, step by step, on whole sorted lists. Probabilities by token id.
std::vector<double> reference(const std::vector<float>& logits, const std::vector<int32_t>& seen,
                              const SamplingParams& p) {
    std::vector<double> x(logits.begin(), logits.end());
    for (double& value : x) value = std::isnan(value) ? -kInf : value;
    for (const int32_t id : std::set<int32_t>(seen.begin(), seen.end())) {
        double& value = x[static_cast<size_t>(id)];
        value = value > 0 ? value / p.repetition_penalty : value * p.repetition_penalty;
    }
    const double largest = *std::max_element(x.begin(), x.end());
    std::vector<std::pair<double, int32_t>> tokens;
    for (size_t i = 0; i < x.size(); ++i) {
        tokens.emplace_back(std::exp((x[i] - largest) / p.temperature), static_cast<int32_t>(i));
    }
    std::stable_sort(tokens.begin(), tokens.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    const auto normalize = [&] {
        double sum = 0;
        for (const auto& token : tokens) sum += token.first;
        for (auto& token : tokens) token.first /= sum;
    };
    if (p.top_k > 0) tokens.resize(std::min(tokens.size(), static_cast<size_t>(p.top_k)));
    normalize();
    size_t kept = 0;
    for (double mass = 0; kept < tokens.size() && (mass < p.top_p || p.top_p == 1); ++kept) {
        mass += tokens[kept].first;
    }
    tokens.resize(kept);
    const double bound = p.min_p * tokens[0].first;
    std::erase_if(tokens, [&](const auto& token) { return token.first < bound; });
    normalize();
    std::vector<double> probs(logits.size());
    for (const auto& [prob, id] : tokens) probs[static_cast<size_t>(id)] = prob;
    return probs;
}

// Draws often; nothing of probability 0 may come, and the rest must fit by chi-square. The bound is
// 6 standard deviations of the statistic: the seeds are fixed, so a right sampler passes always.
void expect_distribution(const std::vector<float>& logits, const std::vector<int32_t>& seen,
                         const SamplingParams& params, int draws = 20000) {
    const std::vector<double> probs = reference(logits, seen, params);
    std::vector<int> counts(logits.size());
    Sampler sampler(params);
    for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sampler.sample(logits, seen))];
    double chi_square = 0;
    double rare_expected = 0;
    double rare_count = 0;
    double cells = -1;
    for (size_t i = 0; i < probs.size(); ++i) {
        if (probs[i] == 0) {
            EXPECT_EQ(counts[i], 0) << "token " << i << " is filtered out";
            continue;
        }
        const double expected = probs[i] * draws;
        if (expected < 10) {
            rare_expected += expected;
            rare_count += counts[i];
            continue;
        }
        chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
        cells += 1;
    }
    if (rare_expected > 10) {
        chi_square += (rare_count - rare_expected) * (rare_count - rare_expected) / rare_expected;
        cells += 1;
    }
    EXPECT_LE(chi_square, cells + 6 * std::sqrt(2 * std::max(cells, 1.0)));
}

std::vector<float> random_logits(size_t size, uint64_t seed, double spread) {
    std::mt19937_64 random(seed);
    std::vector<float> logits(size);
    for (float& logit : logits) {
        const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
        logit = static_cast<float>(spread * (unit - 0.5));
    }
    return logits;
}

void expect_invalid(const SamplingParams& params, const std::string& name) {
    try {
        Sampler sampler(params);
        FAIL() << "no error for " << name;
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
}

TEST(Sampler, Greedy) {
    Sampler sampler({});
    EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 2}, {}), 1);
    EXPECT_EQ(sampler.sample(std::vector<float>{-5}, {}), 0);
    EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 3, 3}, {}), 1);
    EXPECT_EQ(sampler.sample(std::vector<float>{kNan, -7, kNan, -6, -kInf}, {}), 3);
    EXPECT_EQ(sampler.sample(std::vector<float>{0, kInf, kInf}, {}), 1);
    const float lowest = std::numeric_limits<float>::lowest();
    EXPECT_EQ(sampler.sample(std::vector<float>{-kInf, lowest}, {}), 1);
    // The filters change nothing.
    Sampler filtered({.top_k = 2, .top_p = 0.5, .min_p = 0.5, .seed = 3});
    EXPECT_EQ(filtered.sample(std::vector<float>{1, 3, 2}, {}), 1);
}

TEST(Sampler, GreedyWithRepetitionPenalty) {
    Sampler sampler({.repetition_penalty = 2.0});
    const std::vector<float> logits = {4, 3, -1, -3};
    EXPECT_EQ(sampler.sample(logits, {}), 0);
    EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{0}), 1);        // 2, 3
    EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{0, 1}), 0);     // 2, 1.5
    EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{1, 1, 0}), 0);  // once each
    const std::vector<float> negative = {-1, -1.5};
    EXPECT_EQ(sampler.sample(negative, std::vector<int32_t>{0}), 1);  // -2, -1.5
    Sampler reward({.repetition_penalty = 0.5});
    EXPECT_EQ(reward.sample(logits, std::vector<int32_t>{1}), 1);  // 4, 6
    EXPECT_EQ(sampler.sample(std::vector<float>{kNan, -kInf, 2, 1}, std::vector<int32_t>{0, 1, 2}),
              2);
}

TEST(Sampler, Temperature) {
    const std::vector<float> logits = random_logits(40, 1, 6);
    for (const double temperature : {0.3, 1.0, 2.5, 1e308}) {
        expect_distribution(logits, {}, {.temperature = temperature, .seed = 11});
    }
    // Next to zero it is greedy.
    for (const double temperature : {1e-3, 1e-300, 5e-324}) {
        Sampler sampler({.temperature = temperature});
        Sampler greedy({});
        for (int i = 0; i < 20; ++i)
            EXPECT_EQ(sampler.sample(logits, {}), greedy.sample(logits, {}));
    }
}

TEST(Sampler, EachFilter) {
    const std::vector<float> logits = random_logits(60, 2, 8);
    for (const int64_t top_k : {1, 2, 7, 59, 60, 1000}) {
        expect_distribution(logits, {}, {.temperature = 1.5, .top_k = top_k, .seed = 5});
    }
    for (const double top_p : {1e-9, 0.2, 0.5, 0.9, 0.999}) {
        expect_distribution(logits, {}, {.temperature = 1.5, .top_p = top_p, .seed = 6});
    }
    for (const double min_p : {1e-6, 0.01, 0.1, 0.5, 1.0}) {
        expect_distribution(logits, {}, {.temperature = 1.5, .min_p = min_p, .seed = 7});
    }
    for (const double penalty : {0.5, 1.3, 5.0}) {
        expect_distribution(logits, {{3, 3, 17, 40, 59, 0}},
                            {.temperature = 1.5, .repetition_penalty = penalty, .seed = 8});
    }
}

TEST(Sampler, FiltersTogether) {
    const std::vector<float> logits = random_logits(60, 3, 8);
    const std::vector<int32_t> seen = {1, 5, 5, 30};
    uint64_t seed = 100;
    for (const int64_t top_k : {0, 5, 20}) {
        for (const double top_p : {0.4, 0.8, 1.0}) {
            for (const double min_p : {0.0, 0.05, 0.3}) {
                expect_distribution(logits, seen,
                                    {.temperature = 1.2,
                                     .top_k = top_k,
                                     .top_p = top_p,
                                     .min_p = min_p,
                                     .repetition_penalty = 1.2,
                                     .seed = ++seed},
                                    5000);
            }
        }
    }
}

// More tokens than a first selection of candidates holds, in several orders.
TEST(Sampler, LargeVocabulary) {
    std::vector<float> logits = random_logits(3000, 4, 4);
    for (int order = 0; order < 3; ++order) {
        if (order == 1) std::sort(logits.begin(), logits.end());
        if (order == 2) std::sort(logits.begin(), logits.end(), std::greater<>());
        expect_distribution(logits, {}, {.temperature = 1.0, .top_p = 0.7, .seed = 1}, 1000);
        expect_distribution(logits, {}, {.temperature = 0.1, .top_p = 0.7, .seed = 2}, 1000);
        expect_distribution(logits, {}, {.temperature = 1.0, .top_k = 40, .seed = 3}, 1000);
        expect_distribution(logits, {}, {.temperature = 1.0, .top_k = 700, .seed = 4}, 1000);
        expect_distribution(logits, {}, {.temperature = 1.0, .min_p = 0.8, .seed = 5}, 1000);
        expect_distribution(logits, {}, {.temperature = 1.0, .seed = 6}, 1000);
    }
}

TEST(Sampler, TiesGoToTheLowerId) {
    std::vector<float> logits(1000, -1.0F);
    for (const size_t i : {7U, 300U, 500U, 999U}) logits[i] = 2.0F;
    const auto drawn = [&](const SamplingParams& params) {
        Sampler sampler(params);
        std::set<int32_t> ids;
        for (int i = 0; i < 200; ++i) ids.insert(sampler.sample(logits, {}));
        return ids;
    };
    using Ids = std::set<int32_t>;
    EXPECT_EQ(drawn({.temperature = 0.1, .top_k = 1}), (Ids{7}));
    EXPECT_EQ(drawn({.temperature = 0.1, .top_k = 3}), (Ids{7, 300, 500}));
    EXPECT_EQ(drawn({.temperature = 0.1, .top_p = 0.45}), (Ids{7, 300}));
    EXPECT_EQ(drawn({.temperature = 0.1, .top_k = 4, .top_p = 0.2}), (Ids{7}));
    EXPECT_EQ(drawn({.temperature = 0.1, .min_p = 1.0}), (Ids{7, 300, 500, 999}));
    // Ties at the edge of the kept ones, among many equals.
    EXPECT_EQ(drawn({.temperature = 1e9, .top_k = 6}), (Ids{7, 300, 500, 999, 0, 1}));
}

TEST(Sampler, SpecialValues) {
    const std::vector<float> logits = {kNan, 1.0F, -kInf, 2.0F, kNan, 1.5F};
    for (const SamplingParams& params :
         {SamplingParams{.temperature = 1.0}, SamplingParams{.temperature = 1.0, .top_k = 4},
          SamplingParams{.temperature = 1.0, .top_k = 5, .top_p = 0.999},
          SamplingParams{.temperature = 1.0, .min_p = 1e-9}}) {
        expect_distribution(logits, {}, params, 4000);
    }
    Sampler sampler({.temperature = 1.0});
    for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(sampler.sample(std::vector<float>{0, kInf, 3e38F}, {}), 1);
        EXPECT_EQ(sampler.sample(std::vector<float>{-kInf, -3e38F, kNan}, {}), 1);
    }
}

TEST(Sampler, SameSeedSameSequence) {
    const std::vector<float> logits = random_logits(500, 9, 3);
    const auto sequence = [&](uint64_t seed) {
        Sampler sampler({.temperature = 1.0, .top_p = 0.95, .seed = seed});
        std::vector<int32_t> ids(50);
        for (int32_t& id : ids) id = sampler.sample(logits, {});
        return ids;
    };
    EXPECT_EQ(sequence(1), sequence(1));
    EXPECT_EQ(sequence(0), sequence(0));
    std::set<std::vector<int32_t>> different;
    for (uint64_t seed = 0; seed < 20; ++seed) different.insert(sequence(seed));
    EXPECT_EQ(different.size(), 20U);
    // splitmix64's published first outputs for seed 0: 0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, ...
    // With 256 equal logits the token is the top byte.
    Sampler sampler({.temperature = 1.0, .seed = 0});
    const std::vector<float> equal(256, 1.0F);
    std::vector<int32_t> top_bytes(3);
    for (int32_t& id : top_bytes) id = sampler.sample(equal, {});
    EXPECT_EQ(top_bytes, (std::vector<int32_t>{0xe2, 0x6e, 0x06}));
}

TEST(Sampler, ArgumentsOutOfRange) {
    const double nan = kNan;
    for (const double value : {-0.1, nan, static_cast<double>(kInf)}) {
        expect_invalid({.temperature = value}, "temperature");
    }
    expect_invalid({.top_k = -1}, "top_k is -1");
    for (const double value : {0.0, -0.5, 1.01, nan}) expect_invalid({.top_p = value}, "top_p");
    for (const double value : {-0.5, 1.01, nan}) expect_invalid({.min_p = value}, "min_p");
    for (const double value : {0.0, -1.0, nan, static_cast<double>(kInf)}) {
        expect_invalid({.repetition_penalty = value}, "repetition_penalty");
    }
    for (const double temperature : {0.0, 1.0}) {
        Sampler sampler({.temperature = temperature, .repetition_penalty = 1.5});
        const std::vector<float> logits = {1, 2};
        for (const std::vector<float>& bad :
             {std::vector<float>{}, {-kInf, -kInf}, {kNan}, {kInf, -kInf}}) {
            EXPECT_THROW(sampler.sample(bad, {}), Error);
        }
        EXPECT_THROW(sampler.sample(logits, std::vector<int32_t>{2}), Error);
        EXPECT_THROW(sampler.sample(logits, std::vector<int32_t>{-1}), Error);
        EXPECT_NO_THROW(sampler.sample(logits, std::vector<int32_t>{1}));
    }
}

TEST(Sampler, FullVocabularyCost) {
    // Shaped like a model's: a bell of width 3 with a few likely tokens.
    std::vector<float> logits(129280);
    std::mt19937_64 random(5);
    std::normal_distribution<float> bell(0.0F, 3.0F);
    for (float& logit : logits) logit = bell(random);
    for (int i = 0; i < 20; ++i)
        logits[random() % logits.size()] = 14.0F + static_cast<float>(i) / 4;
    const std::vector<int32_t> seen = {1, 2, 3};
    for (const SamplingParams& params :
         {SamplingParams{}, SamplingParams{.temperature = 0.8, .top_k = 50},
          SamplingParams{.temperature = 0.8, .top_k = 50, .top_p = 0.9},
          SamplingParams{.temperature = 0.8, .top_p = 0.9},
          SamplingParams{.temperature = 0.8, .min_p = 0.05},
          SamplingParams{.temperature = 0.8, .top_p = 0.95, .repetition_penalty = 1.1},
          SamplingParams{.temperature = 0.8}}) {
        Sampler sampler(params);
        sampler.sample(logits, seen);
        const int64_t before = allocations;
        double best = 1e9;
        for (int i = 0; i < 20; ++i) {
            const auto start = std::chrono::steady_clock::now();
            sampler.sample(logits, seen);
            const std::chrono::duration<double, std::milli> ms =
                std::chrono::steady_clock::now() - start;
            best = std::min(best, ms.count());
        }
        EXPECT_EQ(allocations, before);
        std::printf("T %g top_k %lld top_p %g min_p %g: %.3f ms\n", params.temperature,
                    static_cast<long long>(params.top_k), params.top_p, params.min_p, best);
#ifdef NDEBUG
        EXPECT_LT(best, 5.0);  // measured: at most 0.8
#endif
    }
}

}  // namespace
}  // namespace dsa
