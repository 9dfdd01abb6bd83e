// The reference forward pass on the tiny checkpoints, against the fp32 oracle, and its operators.

#include "engine/reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "dsa/error.h"
#include "engine/reference_ops.h"
#include "testing/checkpoint_builder.h"
#include "testing/compare.h"
#include "testing/golden.h"
#include "testing/golden_run.h"

namespace dsa {
namespace {

using testing::CheckpointSpec;
using testing::GoldenCase;
using testing::GoldenRun;
using testing::load_golden;
using testing::run_reference;

constexpr ReferenceSteps kAllSteps{
    .act = true, .kv = true, .index = true, .hadamard = true, .bf16 = true};
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<int32_t> random_ids(int64_t n, int64_t vocab) {
    std::mt19937 random(7);
    std::uniform_int_distribution<int32_t> id(0, static_cast<int32_t>(vocab - 1));
    std::vector<int32_t> ids(static_cast<size_t>(n));
    for (int32_t& v : ids) v = id(random);
    return ids;
}

// Logits of all rows, taken in in calls of `call` tokens.
std::vector<float> all_logits(const Checkpoint& checkpoint, const ReferenceSteps& steps,
                              std::span<const int32_t> ids, int64_t call, int threads = 2,
                              ForwardTrace* trace = nullptr) {
    const auto n = std::ssize(ids);
    const int64_t vocab = checkpoint.config().vocab_size;
    const ReferenceModel model(checkpoint, steps, n, threads);
    ReferenceCache cache(checkpoint.config(), n);
    std::vector<float> logits(static_cast<size_t>(n * vocab));
    for (int64_t begin = 0; begin < n; begin += call) {
        const auto size = static_cast<size_t>(std::min(call, n - begin));
        std::vector<int64_t> rows(size);
        std::iota(rows.begin(), rows.end(), 0);
        model.forward(cache, begin, ids.subspan(static_cast<size_t>(begin), size), rows,
                      logits.data() + begin * vocab, trace);
    }
    return logits;
}

ForwardTrace trace_of(const std::vector<int64_t>& rows) {
    ForwardTrace trace;
    trace.rows = rows;
    trace.want_topk = true;
    return trace;
}

float max_magnitude(std::span<const float> x) {
    float max = 0.0F;
    for (float v : x) max = std::max(max, std::abs(v));
    return max;
}

TEST(ReferenceOps, QuantisationScales) {
    // a = 448: both scales are 1. a = 449: UE8M0 doubles. Zeros: the floor of 1e-4.
    std::vector<float> x(256, 0.0F);
    x[0] = 448.0F;
    x[1] = 17.0F;  // between 16 and 18, a tie to even
    x[128] = 449.0F;
    x[129] = 34.0F;
    std::vector<float> y = x;
    reference::quantize_dequantize(y, 256, true);
    EXPECT_EQ(y[0], 448.0F);
    EXPECT_EQ(y[1], 16.0F);
    EXPECT_EQ(y[128], 448.0F);
    EXPECT_EQ(y[129], 32.0F);
    EXPECT_EQ(y[2], 0.0F);

    y = x;
    reference::quantize_dequantize(y, 256, false);
    EXPECT_EQ(y[0], 448.0F);
    EXPECT_EQ(y[1], 16.0F);
    EXPECT_FLOAT_EQ(y[128], 449.0F);
    EXPECT_FLOAT_EQ(y[129], 32.0F * (449.0F / 448.0F));  // 33.92 is below the tie

    // The floor keeps tiny blocks on the grid of a = 1e-4.
    std::vector<float> tiny(128, 1e-10F);
    reference::quantize_dequantize(tiny, 128, true);
    EXPECT_EQ(max_magnitude(tiny), 0.0F);
    // A partial last block has its own scale.
    std::vector<float> partial(130, 448.0F);
    partial[128] = partial[129] = 1.0F / 1024.0F;
    reference::quantize_dequantize(partial, 130, true);
    EXPECT_EQ(partial[129], 1.0F / 1024.0F);
}

TEST(ReferenceOps, HadamardIsTheSylvesterMatrix) {
    std::vector<float> x(128);
    for (size_t column : {0U, 1U, 5U, 127U}) {
        std::fill(x.begin(), x.end(), 0.0F);
        x[column] = 1.0F;
        reference::hadamard(x);
        for (size_t i = 0; i < x.size(); ++i) {
            const float sign = std::popcount(i & column) % 2 == 0 ? 1.0F : -1.0F;
            ASSERT_FLOAT_EQ(x[i], sign * std::sqrt(1.0F / 128.0F)) << column << " " << i;
        }
    }
}

TEST(ReferenceOps, TopKTiesGoToTheLowerPosition) {
    const std::vector<float> scores = {1, 3, 2, 3, 2, -kInf, 2, 0};
    EXPECT_EQ(reference::top_k(scores, 2), (std::vector<int32_t>{1, 3}));
    EXPECT_EQ(reference::top_k(scores, 3), (std::vector<int32_t>{1, 2, 3}));
    EXPECT_EQ(reference::top_k(scores, 4), (std::vector<int32_t>{1, 2, 3, 4}));
    EXPECT_EQ(reference::top_k(scores, 8).size(), 8U);
    const std::vector<float> nan = {std::nanf(""), 1, -kInf, 2};
    EXPECT_EQ(reference::top_k(nan, 3), (std::vector<int32_t>{0, 1, 3}));
}

TEST(ReferenceOps, RouterMasksGroupsWithMinusInfinity) {
    ModelConfig config;
    config.n_routed_experts = 6;
    config.n_group = 3;
    config.topk_group = 1;
    config.num_experts_per_tok = 2;
    config.routed_scaling_factor = 2.0;
    const std::vector<float> logits = {0, 0, 1, 1, 2, 0};
    // All biased scores are negative: masking with 0 would choose experts of other groups.
    const std::vector<float> bias = {-3, -3, -2, -2, -9, -1};
    const reference::Route route = reference::route(config, logits, bias.data());
    EXPECT_EQ(route.experts, (std::vector<int32_t>{2, 3}));
    ASSERT_EQ(route.weights.size(), 2U);
    EXPECT_FLOAT_EQ(route.weights[0], 1.0F);  // without bias: halves, times 2

    config.topk_group = 3;
    config.norm_topk_prob = false;
    const reference::Route free = reference::route(config, logits, bias.data());
    EXPECT_EQ(free.experts, (std::vector<int32_t>{2, 5}));  // 2 before 3: the lower id
    EXPECT_FLOAT_EQ(free.weights[1], 2.0F * 0.5F);
}

class TinyReference : public ::testing::TestWithParam<const char*> {};

TEST_P(TinyReference, EqualsTheOracle) {
    const GoldenCase golden = load_golden(GetParam());
    const GoldenRun run = run_reference(golden, {});
    EXPECT_LE(run.logits_max_abs, 2e-4);
    EXPECT_LE(run.decode_max_abs, 2e-4);
    EXPECT_LE(run.hidden, 1e-4);
    EXPECT_LE(run.index_scores, 1e-5);
    EXPECT_LE(std::abs(run.nll_difference), 1e-5);
    EXPECT_EQ(run.topk.differ, 0);
    EXPECT_EQ(run.topk.near_ties, 0);
    EXPECT_EQ(run.topk.rows, 3 * (236 + 32));
    EXPECT_EQ(run.expert_rows_differ, 0);
    EXPECT_EQ(run.expert_rows, 2 * 300);
    EXPECT_EQ(run.argmax_right, run.steps);
    EXPECT_EQ(run.steps, 32);
}

TEST_P(TinyReference, LayerByLayer) {
    const GoldenCase golden = load_golden(GetParam());
    const Checkpoint checkpoint(golden.model);
    for (const ReferenceSteps& steps : {ReferenceSteps{}, kAllSteps}) {
        const ReferenceModel model(checkpoint, steps, golden.S, 2);
        ReferenceCache cache(checkpoint.config(), golden.S);
        const auto errors = testing::run_layers(
            golden, [&](int64_t layer, std::span<const float> hidden, ForwardTrace* trace) {
                return model.forward_layer(cache, layer, 0, hidden, trace);
            });
        for (const testing::LayerErrors& e : errors) {
            EXPECT_LE(e.index_scores, steps.act ? 0.055 : 5e-6);
            EXPECT_LE(e.output, steps.act ? 0.12 : 5e-6);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, TinyReference, ::testing::Values("tiny-rand", "tiny-planted"),
                         [](const auto& instance) {
                             return std::string(instance.param) == "tiny-rand" ? "rand" : "planted";
                         });

TEST(Reference, AllStepsOnKeepsPlantedChoices) {
    const GoldenRun run = run_reference(load_golden("tiny-planted"), kAllSteps);
    EXPECT_EQ(run.topk.differ + run.topk.near_ties, 0);
    EXPECT_EQ(run.expert_rows_differ, 0);
    EXPECT_LE(run.logits_rel_l2, 0.06);
    EXPECT_LE(run.kl, 0.008);
    EXPECT_GE(run.argmax_right, 30);
}

// Every step alone changes what it should, by about as much as its format is coarse.
TEST(Reference, EachStepIsVisibleAndSmall) {
    const GoldenCase golden = load_golden("tiny-planted");
    const GoldenRun plain = run_reference(golden, {});
    const auto run_with = [&](auto member) {
        ReferenceSteps steps;
        steps.*member = true;
        return run_reference(golden, steps);
    };
    for (const auto& [member, low, high] :
         {std::tuple{&ReferenceSteps::act, 0.01, 0.06}, std::tuple{&ReferenceSteps::kv, 3e-3, 0.03},
          std::tuple{&ReferenceSteps::bf16, 1e-3, 0.02}}) {
        const GoldenRun run = run_with(member);
        const double change = testing::relative_l2(run.logits, plain.logits);
        EXPECT_GE(change, low);
        EXPECT_LE(change, high);
        EXPECT_EQ(run.topk.differ + run.expert_rows_differ, 0);
    }
    // The choices are planted: quantising what makes them moves scores, not logits.
    const GoldenRun index = run_with(&ReferenceSteps::index);
    EXPECT_GE(index.index_scores, 1e-3);
    EXPECT_LE(index.index_scores, 0.05);
    EXPECT_LE(testing::max_abs_difference(index.logits, plain.logits), 1e-5);

    const GoldenRun hadamard = run_with(&ReferenceSteps::hadamard);
    EXPECT_LE(testing::max_abs_difference(hadamard.logits, plain.logits), 1e-5);
    for (size_t l = 0; l < 3; ++l) {
        double worst = 0.0;
        for (size_t r = 0; r < plain.trace.index_scores[l].size(); ++r) {
            worst = std::max(worst, testing::relative_l2(hadamard.trace.index_scores[l][r],
                                                         plain.trace.index_scores[l][r]));
        }
        EXPECT_LT(worst, 1e-5) << "layer " << l;
        EXPECT_GT(worst, 0.0) << "layer " << l << ": no rotation at all";
    }
    // Rotated vectors quantise to other values.
    const GoldenRun both = run_reference(golden, {.index = true, .hadamard = true});
    EXPECT_GE(std::abs(both.index_scores - index.index_scores), 1e-4);
}

TEST(Reference, ChunksAndThreadsDoNotMatter) {
    const GoldenCase golden = load_golden("tiny-planted");
    const Checkpoint checkpoint(golden.model);
    ForwardTrace whole_trace = trace_of(golden.rows);
    const auto whole = all_logits(checkpoint, {}, golden.input_ids, golden.S, 2, &whole_trace);
    const double limit = 1e-5 * max_magnitude(whole);
    for (int64_t call : {1, 7, 64}) {
        ForwardTrace trace = trace_of(golden.rows);
        const auto logits = all_logits(checkpoint, {}, golden.input_ids, call, 2, &trace);
        EXPECT_LE(testing::max_abs_difference(logits, whole), limit) << call;
        EXPECT_EQ(trace.topk, whole_trace.topk) << call;
    }
    const auto three = all_logits(checkpoint, {}, golden.input_ids, golden.S, 3);
    EXPECT_LE(testing::max_abs_difference(three, whole), limit);
}

TEST(Reference, ChunksDoNotMatterForOtherShapes) {
    testing::TempDir dir;
    CheckpointSpec spec;
    spec.n_shared_experts = 0;
    spec.rope_factor = 1.0;
    spec.indexer_rope_interleave = true;
    spec.plain_scales = true;
    spec.ue8m0 = false;
    testing::write_checkpoint(dir.path(), spec);
    const Checkpoint checkpoint(dir.path());
    const auto ids = random_ids(150, checkpoint.config().vocab_size);
    const auto whole = all_logits(checkpoint, {}, ids, 150);
    const auto chunked = all_logits(checkpoint, {}, ids, 7);
    EXPECT_LE(testing::max_abs_difference(chunked, whole), 1e-5 * max_magnitude(whole));
    EXPECT_GT(max_magnitude(whole), 0.1F);
}

// A linear quantises its inputs if its own weight is FP8; kv_b never does.
TEST(Reference, ActivationsAreQuantisedByTheDtypeOfTheWeight) {
    const auto change_by_act = [](const std::string& bf16_linears) {
        testing::TempDir dir;
        CheckpointSpec spec;
        spec.bf16_linears = bf16_linears;
        testing::write_checkpoint(dir.path(), spec);
        const Checkpoint checkpoint(dir.path());
        const auto ids = random_ids(40, checkpoint.config().vocab_size);
        return testing::relative_l2(all_logits(checkpoint, {.act = true}, ids, 40),
                                    all_logits(checkpoint, {}, ids, 40));
    };
    EXPECT_GT(change_by_act(""), 1e-3);
    EXPECT_EQ(change_by_act(".*(q_a|q_b|kv_a|o|gate|up|down)_proj.*|.*indexer.*"), 0.0);
    EXPECT_GT(change_by_act(".*(q_a|q_b|kv_a|gate|up|down)_proj.*|.*indexer.*"), 1e-4);
}

TEST(Reference, WeightBytesOfThePlanAreRight) {
    for (const char* name : {"tiny-rand", "tiny-planted"}) {
        const Checkpoint checkpoint(load_golden(name).model);
        const ReferenceModel model(checkpoint, {}, 16, 1);
        EXPECT_EQ(ReferenceModel::weight_bytes(checkpoint.config()), model.weight_bytes());
    }
}

TEST(Reference, RefusesWhatDoesNotFit) {
    const Checkpoint checkpoint(load_golden("tiny-rand").model);
    const ReferenceModel model(checkpoint, {}, 8, 1);
    ReferenceCache cache(checkpoint.config(), 8);
    const std::vector<int32_t> ids = {1, 2, 3, 4, 5};
    std::vector<float> logits(512);
    const auto code = [&](int64_t position, std::span<const int32_t> tokens,
                          const std::vector<int64_t>& rows) {
        try {
            model.forward(cache, position, tokens, rows, logits.data(), nullptr);
        } catch (const Error& error) {
            return error.code();
        }
        return ErrorCode::kInternal;  // nothing thrown
    };
    EXPECT_EQ(code(4, ids, {}), ErrorCode::kContextOverflow);
    EXPECT_EQ(code(std::numeric_limits<int64_t>::max(), ids, {}), ErrorCode::kContextOverflow);
    EXPECT_EQ(code(-1, ids, {}), ErrorCode::kInvalidArgument);
    EXPECT_EQ(code(0, ids, {5}), ErrorCode::kInvalidArgument);
    EXPECT_EQ(code(0, std::vector<int32_t>{512}, {}), ErrorCode::kInvalidArgument);
    EXPECT_EQ(code(0, std::vector<int32_t>{-1}, {}), ErrorCode::kInvalidArgument);
    EXPECT_EQ(code(3, ids, {4}), ErrorCode::kInternal);
}

}  // namespace
}  // namespace dsa
