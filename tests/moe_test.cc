// Router against a plain re-implementation, experts against double precision.

#include "moe/moe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "testing/op_fixture.h"

namespace dsa::moe {
namespace {

using testing::OpContext;
using testing::OwnedWeight;
using testing::Random;
using testing::random_weight;
using testing::weight_at;

// Chosen experts, ascending, in double and by sorting.
std::vector<int32_t> choose(const float* logits, const float* bias, int64_t experts,
                            int64_t n_group, int64_t topk_group, int64_t topk) {
    std::vector<double> b(static_cast<size_t>(experts));
    for (size_t e = 0; e < b.size(); ++e) b[e] = 1.0 / (1.0 + std::exp(-logits[e])) + bias[e];
    const int64_t size = experts / n_group;
    std::vector<std::pair<double, int64_t>> groups;
    for (int64_t g = 0; g < n_group; ++g) {
        std::vector<double> in(b.begin() + g * size, b.begin() + (g + 1) * size);
        std::sort(in.rbegin(), in.rend());
        groups.emplace_back(-(in[0] + (size > 1 ? in[1] : 0.0)), g);
    }
    std::sort(groups.begin(), groups.end());
    std::vector<std::pair<double, int32_t>> order;
    for (int64_t g = 0; g < topk_group; ++g)
        for (int64_t e = 0; e < size; ++e) {
            const int64_t expert = groups[static_cast<size_t>(g)].second * size + e;
            order.emplace_back(-b[static_cast<size_t>(expert)], static_cast<int32_t>(expert));
        }
    std::sort(order.begin(), order.end());
    std::vector<int32_t> chosen;
    for (int64_t i = 0; i < topk; ++i) chosen.push_back(order[static_cast<size_t>(i)].second);
    std::sort(chosen.begin(), chosen.end());
    return chosen;
}

TEST(Route, MatchesThePlainRule) {
    OpContext context(Isa::kPortable);
    Random random(1);
    struct Shape {
        int64_t experts, n_group, topk_group, topk;
    };
    for (const Shape& s :
         {Shape{256, 8, 4, 8}, Shape{16, 4, 2, 4}, Shape{6, 3, 2, 2}, Shape{8, 1, 1, 8}}) {
        const int64_t tokens = 40;
        const std::vector<float> logits = random.floats(tokens * s.experts);
        // Far below zero: groups that are out must be -inf, not 0.
        std::vector<float> bias = random.floats(s.experts, 0.1F);
        for (float& b : bias) b -= 5.0F;
        for (const bool norm : {true, false}) {
            std::vector<int32_t> experts(static_cast<size_t>(tokens * s.topk));
            std::vector<float> weights(experts.size());
            route(context.exec, {tokens, s.experts, s.n_group, s.topk_group, s.topk, norm, 2.5F,
                                 logits.data(), bias.data(), experts.data(), weights.data()});
            for (int64_t t = 0; t < tokens; ++t) {
                const float* row = logits.data() + t * s.experts;
                const std::vector<int32_t> want =
                    choose(row, bias.data(), s.experts, s.n_group, s.topk_group, s.topk);
                const auto first = experts.begin() + t * s.topk;
                ASSERT_TRUE(std::equal(want.begin(), want.end(), first)) << "token " << t;
                double sum = 0.0;
                for (const int32_t e : want) sum += 1.0 / (1.0 + std::exp(-row[e]));
                for (size_t i = 0; i < want.size(); ++i) {
                    const double a = 1.0 / (1.0 + std::exp(-row[want[i]]));
                    ASSERT_NEAR(weights[static_cast<size_t>(t * s.topk) + i],
                                2.5 * a / (norm ? sum : 1.0), 1e-5);
                }
            }
        }
    }
}

TEST(Route, TiesGoToTheLowerExpertAndGroup) {
    OpContext context(Isa::kPortable);
    const std::vector<float> logits(8, 0.25F);
    const std::vector<float> bias(8, 0.0F);
    int32_t experts[2];
    float weights[2];
    route(context.exec, {1, 8, 4, 2, 2, true, 1.0F, logits.data(), bias.data(), experts, weights});
    EXPECT_EQ(experts[0], 0);
    EXPECT_EQ(experts[1], 1);
    EXPECT_EQ(weights[0], 0.5F);
}

TEST(Route, NanLogitsStillGiveDistinctExperts) {
    OpContext context(Isa::kPortable);
    const std::vector<float> logits(8, NAN);
    const std::vector<float> bias(8, 0.0F);
    int32_t experts[4];
    float weights[4];
    route(context.exec, {1, 8, 4, 2, 4, true, 1.0F, logits.data(), bias.data(), experts, weights});
    for (const int32_t e : experts) EXPECT_TRUE(e >= 0 && e < 8);
}

struct Mlp {
    OwnedWeight gate, up, down;
    Mlp(Random& random, DType dtype, int64_t hidden, int64_t intermediate)
        : gate(random_weight(random, dtype, intermediate, hidden)),
          up(random_weight(random, dtype, intermediate, hidden)),
          down(random_weight(random, dtype, hidden, intermediate)) {
        for (OwnedWeight* w : {&gate, &up})  // keep activations O(1)
            for (float& s : w->scales) s *= 0.1F;
    }
    std::vector<double> apply(const bf16* x, int64_t hidden, int64_t intermediate) const {
        std::vector<double> mid(static_cast<size_t>(intermediate));
        for (int64_t i = 0; i < intermediate; ++i) {
            double g = 0.0;
            double u = 0.0;
            for (int64_t k = 0; k < hidden; ++k) {
                g += weight_at(gate.view, i, k) * to_float(x[k]);
                u += weight_at(up.view, i, k) * to_float(x[k]);
            }
            mid[static_cast<size_t>(i)] = g / (1.0 + std::exp(-g)) * u;
        }
        std::vector<double> out(static_cast<size_t>(hidden));
        for (int64_t h = 0; h < hidden; ++h)
            for (int64_t i = 0; i < intermediate; ++i)
                out[static_cast<size_t>(h)] +=
                    weight_at(down.view, h, i) * mid[static_cast<size_t>(i)];
        return out;
    }
};

class MoeIsa : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, MoeIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });

TEST_P(MoeIsa, ExpertsMatchDoubleAndKeepTheirBits) {
    Random random(2);
    const int64_t hidden = 96;
    const int64_t intermediate = 40;
    const int64_t num_experts = 5;
    const int64_t topk = 2;
    const int64_t tokens = 23;
    std::vector<Mlp> experts;
    for (int64_t e = 0; e < num_experts; ++e)
        experts.emplace_back(random, e == 3 ? DType::kBF16 : DType::kE4M3, hidden, intermediate);
    const Mlp shared(random, DType::kE4M3, hidden, intermediate);
    std::vector<const gemm::Weight*> gate;
    std::vector<const gemm::Weight*> up;
    std::vector<const gemm::Weight*> down;
    for (const Mlp& e : experts) {
        gate.push_back(&e.gate.view);
        up.push_back(&e.up.view);
        down.push_back(&e.down.view);
    }
    const std::vector<bf16> x = random.bf16s(tokens * hidden, 0.3F);
    std::vector<int32_t> chosen;
    for (int64_t t = 0; t < tokens; ++t) {
        const auto first = static_cast<int32_t>(random.below(3));  // expert 4 rarely, some never
        chosen.push_back(first);
        chosen.push_back(first + 1 + static_cast<int32_t>(random.below(t % 7 == 0 ? 2 : 1)));
    }
    std::vector<float> weights = random.floats(tokens * topk);
    const auto run = [&](gemm::Precision precision, int64_t chunk, int threads) {
        OpContext context(GetParam(), threads);
        std::vector<bf16> out(static_cast<size_t>(tokens * hidden));
        for (int64_t t = 0; t < tokens; t += chunk)
            expert_mlp(context.exec, {std::min(chunk, tokens - t),
                                      num_experts,
                                      topk,
                                      x.data() + t * hidden,
                                      chosen.data() + t * topk,
                                      weights.data() + t * topk,
                                      {gate.data(), up.data(), down.data()},
                                      &shared.gate.view,
                                      &shared.up.view,
                                      &shared.down.view,
                                      precision,
                                      gemm::ScaleFormat::kUe8m0,
                                      out.data() + t * hidden});
        return out;
    };
    for (const auto precision : {gemm::Precision::kBf16, gemm::Precision::kFp8}) {
        const std::vector<bf16> whole = run(precision, tokens, 2);
        double error = 0.0;
        double norm = 0.0;
        for (int64_t t = 0; t < tokens; ++t) {
            std::vector<double> want = shared.apply(x.data() + t * hidden, hidden, intermediate);
            for (int64_t i = 0; i < topk; ++i) {
                const auto slot = static_cast<size_t>(t * topk + i);
                const std::vector<double> y = experts[static_cast<size_t>(chosen[slot])].apply(
                    x.data() + t * hidden, hidden, intermediate);
                for (size_t h = 0; h < want.size(); ++h) want[h] += weights[slot] * y[h];
            }
            for (size_t h = 0; h < want.size(); ++h) {
                error +=
                    std::pow(to_float(whole[static_cast<size_t>(t * hidden) + h]) - want[h], 2.0);
                norm += want[h] * want[h];
            }
        }
        EXPECT_LT(std::sqrt(error / norm), precision == gemm::Precision::kBf16 ? 0.01 : 0.08);
        for (const int threads : {1, 3})
            for (const int64_t chunk : {1, 7}) {
                const std::vector<bf16> pieces = run(precision, chunk, threads);
                ASSERT_EQ(std::memcmp(pieces.data(), whole.data(), whole.size() * sizeof(bf16)), 0)
                    << chunk << " tokens, " << threads << " threads";
            }
    }
}

}  // namespace
}  // namespace dsa::moe
