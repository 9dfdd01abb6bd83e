// config.json and generation_config.json: what is read, and what an absent key means.

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "testing/edited_config.h"

namespace dsa {
namespace {

using testing::Edit;
using testing::Json;
using testing::read_edited;

TEST(Config, ReadsTheBuiltInModel) {
    const ModelConfig c = read_config(std::string(DSA_MODELS) + "/dsa-mini");
    EXPECT_EQ(c.model_type, "deepseek_v32");
    EXPECT_EQ(c.architecture, "DeepseekV32ForCausalLM");
    EXPECT_EQ(c.vocab_size, 8192);
    EXPECT_EQ(c.hidden_size, 512);
    EXPECT_EQ(c.num_hidden_layers, 6);
    EXPECT_EQ(c.num_nextn_predict_layers, 1);
    EXPECT_EQ(c.max_position_embeddings, 16384);
    EXPECT_DOUBLE_EQ(c.rms_norm_eps, 1e-6);
    EXPECT_FALSE(c.tie_word_embeddings);
    EXPECT_EQ(c.num_attention_heads, 8);
    EXPECT_EQ(c.q_lora_rank, 384);
    EXPECT_EQ(c.kv_lora_rank, 512);
    EXPECT_EQ(c.qk_nope_head_dim, 128);
    EXPECT_EQ(c.qk_rope_head_dim, 64);
    EXPECT_EQ(c.v_head_dim, 128);
    EXPECT_EQ(c.index_n_heads, 8);
    EXPECT_EQ(c.index_head_dim, 128);
    EXPECT_EQ(c.index_topk, 2048);
    EXPECT_FALSE(c.indexer_rope_interleave);
    EXPECT_EQ(c.intermediate_size, 1536);
    EXPECT_EQ(c.first_k_dense_replace, 1);
    EXPECT_EQ(c.moe_layer_freq, 1);
    EXPECT_EQ(c.moe_intermediate_size, 128);
    EXPECT_EQ(c.n_routed_experts, 16);
    EXPECT_EQ(c.n_shared_experts, 1);
    EXPECT_EQ(c.num_experts_per_tok, 4);
    EXPECT_EQ(c.n_group, 4);
    EXPECT_EQ(c.topk_group, 2);
    EXPECT_TRUE(c.norm_topk_prob);
    EXPECT_DOUBLE_EQ(c.routed_scaling_factor, 1.5);
    EXPECT_DOUBLE_EQ(c.rope_theta, 10000.0);
    EXPECT_DOUBLE_EQ(c.rope_factor, 8.0);
    EXPECT_DOUBLE_EQ(c.rope_beta_fast, 32.0);
    EXPECT_DOUBLE_EQ(c.rope_beta_slow, 1.0);
    EXPECT_DOUBLE_EQ(c.rope_mscale_all_dim, 1.0);
    EXPECT_EQ(c.rope_original_max_position_embeddings, 2048);
    EXPECT_EQ(c.quant_method, "fp8");
    EXPECT_TRUE(c.ue8m0_scales);
    EXPECT_EQ(c.bos_token_id, 1);
    EXPECT_EQ(c.eos_token_ids, std::vector<int32_t>{2});
    EXPECT_TRUE(c.do_sample);
    EXPECT_DOUBLE_EQ(c.temperature, 0.7);
    EXPECT_DOUBLE_EQ(c.top_p, 0.95);
    EXPECT_EQ(c.top_k, 0);
    EXPECT_DOUBLE_EQ(c.repetition_penalty, 1.0);
}

TEST(Config, AbsentKeysMeanTheDefaults) {
    const ModelConfig c = read_edited([](Json& j) {
        for (const char* key : {"architectures",
                                "attention_bias",
                                "hidden_act",
                                "scoring_func",
                                "topk_method",
                                "norm_topk_prob",
                                "bos_token_id",
                                "eos_token_id",
                                "num_nextn_predict_layers",
                                "num_key_value_heads",
                                "n_group",
                                "topk_group",
                                "moe_layer_freq",
                                "rms_norm_eps",
                                "rope_theta",
                                "rope_scaling",
                                "tie_word_embeddings",
                                "quantization_config",
                                "n_shared_experts",
                                "routed_scaling_factor"})
            j.erase(key);
    });
    EXPECT_EQ(c.architecture, "DeepseekV32ForCausalLM");
    EXPECT_EQ(c.num_nextn_predict_layers, 0);
    EXPECT_EQ(c.n_group, 1);
    EXPECT_EQ(c.topk_group, 1);
    EXPECT_TRUE(c.norm_topk_prob);
    EXPECT_EQ(c.moe_layer_freq, 1);
    EXPECT_EQ(c.n_shared_experts, 0);
    EXPECT_DOUBLE_EQ(c.rms_norm_eps, 1e-6);
    EXPECT_DOUBLE_EQ(c.rope_theta, 10000.0);
    EXPECT_DOUBLE_EQ(c.rope_factor, 1.0);
    EXPECT_EQ(c.quant_method, "");
    EXPECT_FALSE(c.ue8m0_scales);
    EXPECT_EQ(c.bos_token_id, -1);
    EXPECT_TRUE(c.eos_token_ids.empty());
    EXPECT_DOUBLE_EQ(c.temperature, 1.0);
}

TEST(Config, NullIsAbsent) {
    const ModelConfig c = read_edited([](Json& j) {
        for (const char* key : {"rope_scaling", "quantization_config", "eos_token_id", "n_group",
                                "topk_group", "n_shared_experts"})
            j[key] = nullptr;
    });
    EXPECT_DOUBLE_EQ(c.rope_factor, 1.0);
    EXPECT_EQ(c.n_group, 1);
    EXPECT_EQ(c.n_shared_experts, 0);
}

TEST(Config, NormTopkProbMayBeOff) {
    EXPECT_FALSE(read_edited([](Json& j) { j["norm_topk_prob"] = false; }).norm_topk_prob);
}

TEST(Config, ScaleFormatDecidesUe8m0) {
    EXPECT_TRUE(read_edited([](Json&) {}).ue8m0_scales);
    EXPECT_FALSE(
        read_edited([](Json& j) { j["quantization_config"].erase("scale_fmt"); }).ue8m0_scales);
}

TEST(Config, RopeParametersReplaceRopeScaling) {
    const ModelConfig plain = read_edited([](Json& j) {
        j["rope_parameters"] = {{"rope_theta", 1000000}, {"rope_type", "default"}};
    });
    EXPECT_DOUBLE_EQ(plain.rope_theta, 1e6);
    EXPECT_DOUBLE_EQ(plain.rope_factor, 1.0);
    const ModelConfig yarn = read_edited([](Json& j) {
        j.erase("rope_theta");
        j["rope_scaling"] = nullptr;
        j["rope_parameters"] = {
            {"rope_theta", 50000.0}, {"rope_type", "yarn"},
            {"factor", 40},          {"beta_fast", 16},
            {"beta_slow", 2},        {"mscale", 0.5},
            {"mscale_all_dim", 0.5}, {"original_max_position_embeddings", 4096}};
    });
    EXPECT_DOUBLE_EQ(yarn.rope_theta, 50000.0);
    EXPECT_DOUBLE_EQ(yarn.rope_factor, 40.0);
    EXPECT_DOUBLE_EQ(yarn.rope_beta_fast, 16.0);
    EXPECT_DOUBLE_EQ(yarn.rope_beta_slow, 2.0);
    EXPECT_DOUBLE_EQ(yarn.rope_mscale_all_dim, 0.5);
    EXPECT_EQ(yarn.rope_original_max_position_embeddings, 4096);
}

TEST(Config, GlmKeys) {
    const ModelConfig c = read_edited([](Json& j) {
        j["architectures"] = Json::array({"GlmMoeDsaForCausalLM"});
        j["model_type"] = "glm_moe_dsa";
        j["indexer_rope_interleave"] = true;
        j["rope_interleave"] = true;
        j["indexer_types"] = {"full", "full", "full"};
        j["eos_token_id"] = {5, 7, 9};
    });
    EXPECT_EQ(c.model_type, "glm_moe_dsa");
    EXPECT_TRUE(c.indexer_rope_interleave);
    EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{5, 7, 9}));
}

TEST(Config, GenerationConfigHasPrecedence) {
    const ModelConfig c = read_edited([](Json&) {}, {{"bos_token_id", 3},
                                                     {"eos_token_id", {4, 6}},
                                                     {"do_sample", true},
                                                     {"temperature", 0.6},
                                                     {"top_p", 0.9},
                                                     {"top_k", 20},
                                                     {"repetition_penalty", 1.05}});
    EXPECT_EQ(c.bos_token_id, 3);
    EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{4, 6}));
    EXPECT_TRUE(c.do_sample);
    EXPECT_DOUBLE_EQ(c.temperature, 0.6);
    EXPECT_DOUBLE_EQ(c.top_p, 0.9);
    EXPECT_EQ(c.top_k, 20);
    EXPECT_DOUBLE_EQ(c.repetition_penalty, 1.05);
    const ModelConfig kept = read_edited([](Json&) {}, {{"temperature", 0.5}});
    EXPECT_EQ(kept.bos_token_id, 0);
    EXPECT_EQ(kept.eos_token_ids, std::vector<int32_t>{1});
}

TEST(Config, MoeLayers) {
    ModelConfig c = read_edited([](Json& j) {
        j["first_k_dense_replace"] = 2;
        j["moe_layer_freq"] = 3;
    });
    const std::vector<bool> expected = {false, false, false, true, false, false, true};
    for (size_t l = 0; l < expected.size(); ++l)
        EXPECT_EQ(is_moe_layer(c, static_cast<int64_t>(l)), expected[l]) << l;
    c = read_edited([](Json& j) {
        for (const char* key : {"n_routed_experts", "moe_intermediate_size", "num_experts_per_tok"})
            j.erase(key);
    });
    EXPECT_FALSE(is_moe_layer(c, 100));
}

}  // namespace
}  // namespace dsa
