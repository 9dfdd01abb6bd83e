// What is refused in config.json and generation_config.json, and how the message names it.

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "dsa/error.h"
#include "engine/checkpoint.h"
#include "testing/edited_config.h"
#include "testing/expect_error.h"

namespace dsa {
namespace {

using testing::Edit;
using testing::expect_error;
using testing::Json;
using testing::read_edited;
using testing::TempDir;

ModelConfig read_text(const std::string& text) {
    const TempDir dir;
    std::ofstream(dir / "config.json") << text;
    return read_config(dir.path());
}

struct Refusal {
    const char* name;
    Edit edit;
    ErrorCode code;
    std::vector<std::string> parts;
};

TEST(Config, Refuses) {
    constexpr auto kInvalid = ErrorCode::kInvalidModel;
    constexpr auto kUnsupported = ErrorCode::kUnsupported;
    const std::vector<Refusal> refusals = {
        {"type",
         [](Json& j) { j["model_type"] = "llama"; },
         kUnsupported,
         {"model_type is \"llama\"", "deepseek_v32"}},
        {"type of V3",
         [](Json& j) { j["model_type"] = "deepseek_v3"; },
         kUnsupported,
         {"model_type is \"deepseek_v3\""}},
        {"architecture",
         [](Json& j) { j["architectures"][0] = "LlamaForCausalLM"; },
         kUnsupported,
         {"architectures is [\"LlamaForCausalLM\"]"}},
        {"mixed",
         [](Json& j) { j["architectures"][0] = "GlmMoeDsaForCausalLM"; },
         kUnsupported,
         {"architectures"}},
        {"no type",
         [](Json& j) { j.erase("model_type"), j.erase("architectures"); },
         kInvalid,
         {"model_type is absent"}},
        {"architectures",
         [](Json& j) { j["architectures"] = "x"; },
         kInvalid,
         {"architectures is \"x\"", "list of strings"}},
        {"missing",
         [](Json& j) { j.erase("hidden_size"); },
         kInvalid,
         {"hidden_size is absent", "from 1 to 16777216"}},
        {"string",
         [](Json& j) { j["vocab_size"] = "301"; },
         kInvalid,
         {"vocab_size is \"301\"", "an integer"}},
        {"fraction", [](Json& j) { j["q_lora_rank"] = 192.5; }, kInvalid, {"q_lora_rank is 192.5"}},
        {"float", [](Json& j) { j["q_lora_rank"] = 192.0; }, kInvalid, {"q_lora_rank is 192.0"}},
        {"bool", [](Json& j) { j["index_topk"] = true; }, kInvalid, {"index_topk is true"}},
        {"zero", [](Json& j) { j["num_hidden_layers"] = 0; }, kInvalid, {"num_hidden_layers is 0"}},
        {"negative", [](Json& j) { j["hidden_size"] = -320; }, kInvalid, {"hidden_size is -320"}},
        {"huge", [](Json& j) { j["hidden_size"] = int64_t{1} << 40; }, kInvalid, {"hidden_size"}},
        {"uint64", [](Json& j) { j["hidden_size"] = UINT64_MAX; }, kInvalid, {"hidden_size"}},
        {"layers", [](Json& j) { j["num_hidden_layers"] = 1025; }, kInvalid, {"1024"}},
        {"experts", [](Json& j) { j["n_routed_experts"] = 65537; }, kInvalid, {"n_routed_experts"}},
        {"rank", [](Json& j) { j["q_lora_rank"] = nullptr; }, kInvalid, {"q_lora_rank is absent"}},
        {"kv_lora_rank",
         [](Json& j) { j["kv_lora_rank"] = 256; },
         kUnsupported,
         {"kv_lora_rank is 256, expected 512"}},
        {"nope",
         [](Json& j) { j["qk_nope_head_dim"] = 192; },
         kUnsupported,
         {"qk_nope_head_dim is 192, expected 128"}},
        {"rope dim",
         [](Json& j) { j["qk_rope_head_dim"] = 32; },
         kUnsupported,
         {"qk_rope_head_dim is 32, expected 64"}},
        {"value dim",
         [](Json& j) { j["v_head_dim"] = 256; },
         kUnsupported,
         {"v_head_dim is 256, expected 128"}},
        {"index dim",
         [](Json& j) { j["index_head_dim"] = 64; },
         kUnsupported,
         {"index_head_dim is 64, expected 128"}},
        {"qk_head_dim",
         [](Json& j) { j["qk_head_dim"] = 256; },
         kInvalid,
         {"qk_head_dim is 256, expected 192"}},
        {"kv heads",
         [](Json& j) { j["num_key_value_heads"] = 1; },
         kInvalid,
         {"num_key_value_heads is 1, expected 3"}},
        {"indexer_types",
         [](Json& j) {
             j["indexer_types"] = {"full", "shared", "full"};
         },
         kUnsupported,
         {"indexer_types", "\"shared\""}},
        {"indexer_types type",
         [](Json& j) { j["indexer_types"] = {1}; },
         kInvalid,
         {"indexer_types"}},
        {"interleave",
         [](Json& j) { j["indexer_rope_interleave"] = 1; },
         kInvalid,
         {"indexer_rope_interleave is 1", "true or false"}},
        {"half-split MLA",
         [](Json& j) { j["rope_interleave"] = false; },
         kUnsupported,
         {"rope_interleave"}},
        {"scoring",
         [](Json& j) { j["scoring_func"] = "softmax"; },
         kUnsupported,
         {"scoring_func is \"softmax\", expected \"sigmoid\""}},
        {"method", [](Json& j) { j["topk_method"] = "greedy"; }, kUnsupported, {"topk_method"}},
        {"act", [](Json& j) { j["hidden_act"] = "gelu"; }, kUnsupported, {"hidden_act"}},
        {"bias", [](Json& j) { j["attention_bias"] = true; }, kUnsupported, {"attention_bias"}},
        {"norm_topk", [](Json& j) { j["norm_topk_prob"] = 1; }, kInvalid, {"norm_topk_prob is 1"}},
        {"group divides", [](Json& j) { j["n_group"] = 4; }, kInvalid, {"n_group is 4", "(6)"}},
        {"group of one",
         [](Json& j) { j["n_group"] = 6; },
         kInvalid,
         {"n_group is 6", "2 experts"}},
        {"topk_group",
         [](Json& j) { j["topk_group"] = 4; },
         kInvalid,
         {"topk_group is 4", "from 1 to 3"}},
        {"per token",
         [](Json& j) { j["num_experts_per_tok"] = 5; },
         kInvalid,
         {"num_experts_per_tok is 5", "at most 4"}},
        {"per token absent",
         [](Json& j) { j.erase("num_experts_per_tok"); },
         kInvalid,
         {"num_experts_per_tok is absent"}},
        {"dense size",
         [](Json& j) { j.erase("intermediate_size"); },
         kInvalid,
         {"intermediate_size is absent"}},
        {"eps", [](Json& j) { j["rms_norm_eps"] = 0; }, kInvalid, {"rms_norm_eps is 0"}},
        {"rope type",
         [](Json& j) { j["rope_scaling"]["type"] = "llama3"; },
         kUnsupported,
         {"rope_scaling.type is \"llama3\"", "yarn"}},
        {"no rope type",
         [](Json& j) { j["rope_scaling"].erase("type"); },
         kInvalid,
         {"rope_scaling.rope_type is absent"}},
        {"rope list",
         [](Json& j) {
             j["rope_scaling"] = {1, 2};
         },
         kInvalid,
         {"rope_scaling is [1,2], expected an object"}},
        {"factor",
         [](Json& j) { j["rope_scaling"].erase("factor"); },
         kInvalid,
         {"rope_scaling.factor is absent"}},
        {"factor below 1",
         [](Json& j) { j["rope_scaling"]["factor"] = 0.5; },
         kInvalid,
         {"rope_scaling.factor is 0.5"}},
        {"mscale",
         [](Json& j) { j["rope_scaling"]["mscale"] = 0.5; },
         kUnsupported,
         {"rope_scaling.mscale is 0.5", "mscale_all_dim"}},
        {"rope parameters",
         [](Json& j) {
             j["rope_parameters"] = {{"rope_type", "linear"}};
         },
         kUnsupported,
         {"rope_parameters.rope_type is \"linear\""}},
        {"quant method",
         [](Json& j) { j["quantization_config"]["quant_method"] = "awq"; },
         kUnsupported,
         {"quantization_config.quant_method is \"awq\""}},
        {"block",
         [](Json& j) {
             j["quantization_config"]["weight_block_size"] = {64, 128};
         },
         kUnsupported,
         {"quantization_config.weight_block_size is [64,128], expected [128,128]"}},
        {"fmt",
         [](Json& j) { j["quantization_config"]["fmt"] = "e5m2"; },
         kUnsupported,
         {"quantization_config.fmt is \"e5m2\", expected \"e4m3\""}},
        {"activations",
         [](Json& j) { j["quantization_config"]["activation_scheme"] = "static"; },
         kUnsupported,
         {"activation_scheme"}},
        {"scale_fmt",
         [](Json& j) { j["quantization_config"]["scale_fmt"] = "x"; },
         kUnsupported,
         {"scale_fmt"}},
        {"eos",
         [](Json& j) { j["eos_token_id"] = 301; },
         kInvalid,
         {"eos_token_id is 301", "from 0 to 300"}},
        {"eos list",
         [](Json& j) {
             j["eos_token_id"] = {1, "x"};
         },
         kInvalid,
         {"eos_token_id"}},
        {"list",
         [](Json& j) {
             j = {1, 2};
         },
         kInvalid,
         {"[1,2], expected an object"}},
    };
    for (const Refusal& r : refusals) {
        SCOPED_TRACE(r.name);
        auto parts = r.parts;
        parts.push_back("config.json");
        expect_error([&] { read_edited(r.edit); }, r.code, parts);
    }
}

TEST(Config, RefusesGenerationConfig) {
    const auto refuse = [](const Json& generation, const std::string& part) {
        expect_error([&] { read_edited([](Json&) {}, generation); }, ErrorCode::kInvalidModel,
                     {part, "generation_config.json"});
    };
    refuse({{"temperature", -1}}, "temperature is -1");
    refuse({{"top_p", 1.5}}, "top_p is 1.5");
    refuse({{"top_k", 1.5}}, "top_k is 1.5");
    refuse({{"repetition_penalty", 0}}, "repetition_penalty is 0");
    refuse({{"eos_token_id", {1, 999}}}, "eos_token_id is [1,999]");
    refuse({{"do_sample", "yes"}}, "do_sample");
    refuse(7, "expected an object");
}

TEST(Config, RefusesBadJson) {
    const std::string open(100000, '[');
    const std::string objects = [] {
        std::string s;
        for (int i = 0; i < 50000; ++i) s += "{\"a\":";
        return s;
    }();
    const std::vector<std::pair<std::string, std::string>> texts = {
        {"", "not valid JSON"},
        {"{", "not valid JSON"},
        {"{\"a\": 1} x", "not valid JSON"},
        {"{\"a\": \"\xff\"}", "not valid JSON"},
        {"{\"vocab_size\": 1e999}", "not valid JSON"},
        {std::string("{\"a\": 1}\0{", 10), "zero byte"},
        {open, "nested deeper"},
        {"{\"a\": " + open, "nested deeper"},
        {objects, "nested deeper"},
        {"{\"vocab_size\": 1, \"vocab_size\": 2}", "duplicate key \"vocab_size\""},
        {"{\"a\": [{\"b\": 1, \"b\": 2}]}", "duplicate key \"b\""},
    };
    for (const auto& item : texts)
        expect_error([&] { read_text(item.first); }, ErrorCode::kInvalidModel,
                     {item.second, "config.json"});
    // The same key in two objects is no duplicate: the next complaint is about the model's type.
    expect_error([] { read_text("{\"a\": {\"b\": 1}, \"b\": [{\"b\": 2}, {\"b\": 3}]}"); },
                 ErrorCode::kInvalidModel, {"model_type"});
}

TEST(Config, RefusesWrongFolders) {
    const TempDir dir;
    expect_error([&] { read_config(dir / "nowhere"); }, ErrorCode::kNotFound,
                 {"nowhere", "no such model folder"});
    expect_error([&] { read_config(dir.path()); }, ErrorCode::kNotFound,
                 {dir.path().string(), "config.json"});
    std::filesystem::create_directory(dir / "config.json");
    expect_error([&] { read_config(dir.path()); }, ErrorCode::kNotFound, {"config.json"});
}

}  // namespace
}  // namespace dsa
