// The forward pass over the kernels on the tiny checkpoints: against the oracle, layer by layer,
// and reading only what was selected. That the bits are the same in every way is in
// same_bits_test.cc.

#include "engine/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention/attention.h"
#include "testing/checkpoint_builder.h"
#include "testing/golden_run.h"

namespace dsa {
namespace {

using gemm::Precision;
using testing::CpuForward;
using testing::GoldenCase;
using testing::GoldenRun;
using testing::load_golden;

struct Variant {
    Isa isa;
    Precision precision;
};

std::vector<Variant> all_variants() {
    std::vector<Variant> v;
    for (const Isa isa : supported_isas())
        for (const Precision p : {Precision::kBf16, Precision::kFp8}) v.push_back({isa, p});
    return v;
}

std::string name_of(const ::testing::TestParamInfo<Variant>& info) {
    return std::string(to_string(info.param.isa)) +
           (info.param.precision == Precision::kFp8 ? "_fp8_" : "_bf16_") + "path";
}

class TinyModel : public ::testing::TestWithParam<Variant> {
  protected:
    bool fp8() const { return GetParam().precision == Precision::kFp8; }
};
INSTANTIATE_TEST_SUITE_P(All, TinyModel, ::testing::ValuesIn(all_variants()), name_of);

TEST_P(TinyModel, PlantedChoicesAreTheOracles) {
    const GoldenRun run =
        testing::run_cpu(load_golden("tiny-planted"), GetParam().isa, GetParam().precision);
    EXPECT_EQ(run.topk.differ + run.topk.near_ties, 0);
    EXPECT_EQ(run.topk.rows, 3 * (236 + 32));
    EXPECT_EQ(run.expert_rows_differ, 0);
    EXPECT_EQ(run.expert_rows, 600);
    EXPECT_LE(run.logits_rel_l2, fp8() ? 0.06 : 0.025);
    EXPECT_LE(run.kl, fp8() ? 0.008 : 0.0015);
    EXPECT_GE(run.argmax_right, run.steps - 2);
}

TEST_P(TinyModel, RandomModelLayerByLayer) {
    const GoldenCase golden = load_golden("tiny-rand");
    CpuForward cpu(golden.model, GetParam().isa, GetParam().precision, golden.S, 2);
    const auto errors = testing::run_layers(
        golden, [&](int64_t layer, std::span<const float> hidden, ForwardTrace* trace) {
            return cpu.model.forward_layer(cpu.exec, cpu.cache, layer, 0, hidden, trace);
        });
    for (const testing::LayerErrors& e : errors) {
        EXPECT_LE(e.index_scores, fp8() ? 0.055 : 0.035);
        EXPECT_LE(e.output, fp8() ? 0.12 : 0.09);
    }
}

// Every record that a step did not select becomes NaN; the step must not notice.
TEST_P(TinyModel, AttentionReadsSelectedRecordsOnly) {
    const GoldenCase golden = load_golden("tiny-rand");
    CpuForward cpu(golden.model, GetParam().isa, GetParam().precision, golden.S, 2);
    const auto ids = std::span(golden.input_ids);
    cpu.model.forward(cpu.exec, cpu.cache, 0, ids.first(299), {}, nullptr, nullptr);
    const std::vector<int64_t> row = {0};
    std::vector<float> before(static_cast<size_t>(golden.V));
    ForwardTrace trace;
    trace.rows = {299};
    trace.want_topk = true;
    cpu.model.forward(cpu.exec, cpu.cache, 299, ids.subspan(299), row, before.data(), &trace);
    int64_t spoiled = 0;
    for (int64_t l = 0; l < golden.L; ++l) {
        const std::vector<int32_t>& selected = trace.topk[static_cast<size_t>(l)][0];
        ASSERT_EQ(selected.size(), 64U);
        for (int32_t s = 0; s < 300; ++s) {
            if (std::binary_search(selected.begin(), selected.end(), s)) continue;
            std::memset(cpu.cache.kv(l).page(s) + s % kPageTokens * attention::kRecordBytes, 0xff,
                        attention::kRecordBytes);
            ++spoiled;
        }
    }
    EXPECT_EQ(spoiled, golden.L * (300 - 64));
    std::vector<float> after(before.size());
    cpu.model.forward(cpu.exec, cpu.cache, 299, ids.subspan(299), row, after.data(), nullptr);
    EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);

    // And the test would see it: one selected record of one layer.
    const int32_t s = trace.topk[0][0][10];
    std::memset(cpu.cache.kv(0).page(s) + s % kPageTokens * attention::kRecordBytes, 0xff,
                attention::kRecordBytes);
    cpu.model.forward(cpu.exec, cpu.cache, 299, ids.subspan(299), row, after.data(), nullptr);
    EXPECT_TRUE(std::isnan(after[0]));
}

// ---- checkpoints of other shapes and ways of storing ----

struct Shape {
    const char* name;
    testing::CheckpointSpec spec;
};

std::vector<Shape> shapes() {
    std::vector<Shape> all;
    const auto add = [&](const char* name, auto change) {
        Shape s{name, {}};
        change(s.spec);
        all.push_back(s);
    };
    add("plain", [](auto&) {});
    add("storage", [](auto& s) {
        s.norms_f32 = true;
        s.k_norm_bf16 = true;
        s.plain_scales = true;
        s.scales_in_other_shard = true;
        s.misalign = true;
        s.shards = 3;
    });
    add("mixed_dtypes", [](auto& s) {
        s.bf16_linears = "kv_b_proj|experts\\.1\\.|layers\\.0\\..*up_proj|indexer\\.wk";
        s.fp8_linears = "mlp\\.gate\\.|weights_proj";
        s.bf16_lm_head = false;
        s.ue8m0 = false;
    });
    add("mtp", [](auto& s) { s.num_nextn_predict_layers = 1; });
    add("no_shared_expert_no_yarn", [](auto& s) {
        s.n_shared_experts = 0;
        s.rope_factor = 1.0;
        s.indexer_rope_interleave = true;
        s.first_k_dense_replace = 0;
        s.n_group = 1;
        s.topk_group = 1;
    });
    add("wide", [](auto& s) {
        s.num_attention_heads = 17;
        s.index_n_heads = 33;
        s.hidden_size = 136;
        s.q_lora_rank = 72;
        s.n_routed_experts = 24;
        s.n_shared_experts = 2;
        s.num_experts_per_tok = 5;
        s.index_topk = 1;
    });
    return all;
}

class ShapedModel : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(All, ShapedModel, ::testing::ValuesIn(shapes()),
                         [](const auto& param) { return std::string(param.param.name); });

// Layer by layer from the reference's hidden states, so that a flipped choice stays where it is.
TEST_P(ShapedModel, LayersFollowTheReference) {
    const testing::TempDir dir;
    testing::write_checkpoint(dir.path(), GetParam().spec);
    const Checkpoint checkpoint(dir.path());
    const int64_t hidden = checkpoint.config().hidden_size;
    const int64_t tokens = 90;
    ReferenceSteps steps;
    steps.kv = steps.index = steps.hadamard = steps.bf16 = true;
    const ReferenceModel reference(checkpoint, steps, tokens, 2);
    for (const Isa isa : supported_isas()) {
        ReferenceCache cache(checkpoint.config(), tokens);
        CpuForward cpu(dir.path(), isa, Precision::kBf16, tokens, 2);
        std::vector<float> input;
        for (int64_t i = 0; i < tokens * hidden; ++i)
            input.push_back(round_bf16(std::sin(static_cast<float>(i * i % 1009))));
        for (int64_t l = 0; l < checkpoint.config().num_hidden_layers; ++l) {
            const std::vector<float> want = reference.forward_layer(cache, l, 0, input, nullptr);
            const std::vector<float> got =
                cpu.model.forward_layer(cpu.exec, cpu.cache, l, 0, input, nullptr);
            // Most rows agree to bf16's rounding; a flipped selection or expert changes a few.
            int64_t close = 0;
            for (int64_t t = 0; t < tokens; ++t) {
                const auto row = [&](const std::vector<float>& x) {
                    return std::span(x).subspan(static_cast<size_t>(t * hidden),
                                                static_cast<size_t>(hidden));
                };
                close += testing::relative_l2(row(got), row(want)) < 0.02 ? 1 : 0;
            }
            EXPECT_GE(close, tokens * 8 / 10) << "layer " << l << " " << to_string(isa);
            EXPECT_LE(testing::relative_l2(got, want), 0.15)
                << "layer " << l << " " << to_string(isa);
            input = want;
        }
    }
}

}  // namespace
}  // namespace dsa
