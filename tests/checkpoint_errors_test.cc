// Damaged and incomplete checkpoints: the error names the tensor, field or file. Warnings.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "dsa/error.h"
#include "engine/checkpoint.h"
#include "testing/checkpoint_builder.h"
#include "testing/expect_error.h"

namespace dsa {
namespace {

using testing::CheckpointSpec;
using testing::expect_error;
using testing::make_config;
using testing::make_tensors;
using testing::RawTensor;
using testing::TempDir;
using testing::write_checkpoint;
using Json = nlohmann::json;
using Tensors = std::vector<RawTensor>;

bool any_contains(const std::vector<std::string>& lines, const std::string& a,
                  const std::string& b = "") {
    for (const std::string& line : lines)
        if (line.find(a) != std::string::npos && line.find(b) != std::string::npos) return true;
    return false;
}

RawTensor& find(Tensors& tensors, const std::string& name) {
    for (RawTensor& t : tensors)
        if (t.name == name) return t;
    throw std::runtime_error("the test expects a tensor " + name);
}

void remove(Tensors& tensors, const std::string& name) {
    const size_t before = tensors.size();
    std::erase_if(tensors, [&](const RawTensor& t) { return t.name == name; });
    if (tensors.size() == before) throw std::runtime_error("the test expects a tensor " + name);
}

void set_scale(Tensors& tensors, const std::string& name, size_t i, float value) {
    std::memcpy(&find(tensors, name).bytes.at(i * 4), &value, 4);
}

struct Damage {
    const char* name;
    std::function<void(Json&, Tensors&)> apply;
    std::vector<std::string> parts;
};

TEST(Checkpoint, RefusesDamagedModels) {
    const std::string attn = "model.layers.1.self_attn.";
    const std::string expert = "model.layers.2.mlp.experts.5.down_proj.weight";
    const std::vector<Damage> damages = {
        {"missing",
         [&](Json&, Tensors& t) { remove(t, attn + "o_proj.weight"); },
         {attn + "o_proj.weight is missing", "[320, 384]", "BF16 or F8_E4M3"}},
        {"missing norm",
         [&](Json&, Tensors& t) { remove(t, attn + "q_a_layernorm.weight"); },
         {attn + "q_a_layernorm.weight is missing", "[192]", "F32 or BF16"}},
        {"missing scale",
         [&](Json&, Tensors& t) { remove(t, expert + "_scale_inv"); },
         {expert + "_scale_inv is missing", "[3, 1]", "F32"}},
        {"missing head",
         [&](Json&, Tensors& t) { remove(t, "lm_head.weight"); },
         {"lm_head.weight is missing", "[301, 320]"}},
        {"missing expert",
         [](Json& c, Tensors&) { c["n_routed_experts"] = 9; },
         {"mlp.gate.weight has shape [6, 320], expected [9, 320]"}},
        {"absurd counts",
         [](Json& c, Tensors&) {
             c["num_hidden_layers"] = 1024, c["n_routed_experts"] = 65535, c["n_group"] = 1;
             c["topk_group"] = 1, c["first_k_dense_replace"] = 0;
         },
         {"model.layers.0.mlp.gate.weight is missing, expected [65535, 320]"}},
        {"missing layer",
         [](Json& c, Tensors&) { c["num_hidden_layers"] = 4; },
         {"model.layers.3.input_layernorm.weight is missing"}},
        {"extra layer",
         [](Json& c, Tensors&) { c["num_hidden_layers"] = 2; },
         {"tensor model.layers.2.input_layernorm.weight", "belongs to layer 2",
          "num_hidden_layers 2", "safetensors"}},
        {"extra MTP",
         [](Json&, Tensors& t) {
             t.push_back({"model.layers.3.enorm.weight", "F32", {1}, std::vector<uint8_t>(4)});
         },
         {"model.layers.3.enorm.weight", "num_nextn_predict_layers 0"}},
        {"layer number",
         [](Json&, Tensors& t) {
             t.push_back({"model.layers.99999999999999999999999.x", "U8", {1}, {0}});
         },
         {"model.layers.99999999999999999999999.x"}},
        {"part of MTP",
         [](Json& c, Tensors& t) {
             c["num_nextn_predict_layers"] = 1;
             t.push_back({"model.layers.3.enorm.weight", "F32", {320}, std::vector<uint8_t>(1280)});
         },
         {"model.layers.3.hnorm.weight is missing, expected [320]"}},
        {"transposed",
         [&](Json&, Tensors& t) {
             find(t, attn + "q_a_proj.weight").shape = {320, 192};
         },
         {attn + "q_a_proj.weight has shape [320, 192], expected [192, 320]", "safetensors"}},
        {"rank",
         [](Json&, Tensors& t) {
             find(t, "model.norm.weight").shape = {320, 1};
         },
         {"model.norm.weight has shape [320, 1], expected [320]"}},
        {"scale shape",
         [&](Json&, Tensors& t) {
             find(t, expert + "_scale_inv").shape = {1, 3};
         },
         {expert + "_scale_inv has shape [1, 3], expected [3, 1]"}},
        {"vocabulary",
         [](Json& c, Tensors&) { c["vocab_size"] = 300; },
         {"model.embed_tokens.weight has shape [301, 320], expected [300, 320]"}},
        {"f16",
         [&](Json&, Tensors& t) { find(t, "lm_head.weight").dtype = "F16"; },
         {"lm_head.weight is F16, expected BF16 or F8_E4M3"}},
        {"f32 linear",
         [](Json&, Tensors& t) {
             RawTensor& head = find(t, "lm_head.weight");
             head.dtype = "F32";
             head.bytes.resize(head.bytes.size() * 2);
         },
         {"lm_head.weight is F32, expected BF16 or F8_E4M3"}},
        {"e5m2",
         [&](Json&, Tensors& t) { find(t, expert).dtype = "F8_E5M2"; },
         {expert + " is F8_E5M2, expected BF16 or F8_E4M3"}},
        {"unknown type",
         [&](Json&, Tensors& t) { find(t, expert).dtype = "F6_X"; },
         {expert + " is F6_X, expected"}},
        {"fp8 embedding",
         [](Json&, Tensors& t) {
             RawTensor& embed = find(t, "model.embed_tokens.weight");
             embed.dtype = "F8_E4M3";
             embed.bytes.resize(embed.bytes.size() / 2);
         },
         {"model.embed_tokens.weight is F8_E4M3, expected BF16"}},
        {"norm type",
         [](Json&, Tensors& t) { find(t, "model.norm.weight").dtype = "F16"; },
         {"model.norm.weight is F16, expected F32 or BF16"}},
        {"scale type",
         [&](Json&, Tensors& t) { find(t, expert + "_scale_inv").dtype = "I32"; },
         {expert + "_scale_inv is I32, expected F32"}},
        {"NaN scale",
         [&](Json&, Tensors& t) { set_scale(t, attn + "o_proj.weight_scale_inv", 5, NAN); },
         {attn + "o_proj.weight_scale_inv has nan at [1, 2], expected finite"}},
        {"infinite scale",
         [&](Json&, Tensors& t) { set_scale(t, expert + "_scale_inv", 0, -INFINITY); },
         {expert + "_scale_inv has -inf at [0, 0]"}},
    };
    const CheckpointSpec spec;
    const Tensors intact = make_tensors(spec);
    for (const Damage& d : damages) {
        SCOPED_TRACE(d.name);
        Json config = make_config(spec);
        Tensors tensors = intact;
        d.apply(config, tensors);
        const TempDir dir;
        write_checkpoint(dir.path(), spec, config, tensors);
        auto parts = d.parts;
        parts.push_back(dir.path().string());
        expect_error([&] { Checkpoint{dir.path()}; }, ErrorCode::kInvalidModel, parts);
    }
}

TEST(Checkpoint, WarnsOfWhatItDoesNotUse) {
    CheckpointSpec spec;
    spec.bf16_linears = "layers\\.1\\.self_attn\\.o_proj";
    Json config = make_config(spec);
    config["num_nextn_predict_layers"] = 1;
    Tensors tensors = make_tensors(spec);
    tensors.push_back({"model.layers.1.self_attn.o_proj.weight_scale_inv",
                       "F32",
                       {3, 3},
                       std::vector<uint8_t>(36)});
    tensors.push_back({"vision.patch.weight", "F4_X", {3, 3}, std::vector<uint8_t>(7)});
    const TempDir dir;
    write_checkpoint(dir.path(), spec, config, tensors);
    const Checkpoint checkpoint(dir.path());
    const auto& warnings = checkpoint.info().warnings;
    EXPECT_EQ(warnings.size(), 3U);
    EXPECT_TRUE(
        any_contains(warnings, "o_proj.weight_scale_inv is not used", "o_proj.weight is BF16"));
    EXPECT_TRUE(any_contains(warnings, "vision.patch.weight is not used"));
    EXPECT_TRUE(any_contains(warnings, "num_nextn_predict_layers 1", "model.layers.3."));
    EXPECT_TRUE(checkpoint.weights().mtp.empty());
    EXPECT_EQ(checkpoint.config().num_nextn_predict_layers, 1);
}

TEST(Checkpoint, CapsItsWarnings) {
    const CheckpointSpec spec;
    Tensors tensors = make_tensors(spec);
    for (int i = 0; i < 33; ++i) tensors.push_back({"extra." + std::to_string(i), "U8", {1}, {0}});
    const TempDir dir;
    write_checkpoint(dir.path(), spec, make_config(spec), tensors);
    const auto warnings = Checkpoint(dir.path()).info().warnings;
    EXPECT_EQ(warnings.size(), 21U);
    EXPECT_EQ(warnings.back(), "and 13 more tensors that are not used");
}

// An index of a written checkpoint, edited.
void edit_index(const std::filesystem::path& dir, const std::function<void(Json&)>& edit) {
    const auto path = dir / "model.safetensors.index.json";
    Json index = Json::parse(std::ifstream(path));
    edit(index);
    testing::write_json(path, index);
}

TEST(Checkpoint, RefusesBadIndexes) {
    struct Case {
        std::function<void(Json&)> edit;
        ErrorCode code;
        std::vector<std::string> parts;
    };
    constexpr auto kInvalid = ErrorCode::kInvalidModel;
    const std::string norm = "model.norm.weight";
    const std::vector<Case> cases = {
        {[&](Json& j) { j["weight_map"][norm] = "absent.safetensors"; },
         ErrorCode::kNotFound,
         {"absent.safetensors", "no such file"}},
        {[&](Json& j) { j["weight_map"][norm] = "../model-00001-of-00002.safetensors"; },
         kInvalid,
         {"weight_map." + norm + " is \"../model", "index.json"}},
        {[&](Json& j) { j["weight_map"][norm] = "/etc/passwd"; }, kInvalid, {"/etc/passwd"}},
        {[&](Json& j) { j["weight_map"][norm] = ".."; }, kInvalid, {norm}},
        {[&](Json& j) { j["weight_map"][norm] = ""; }, kInvalid, {norm}},
        {[&](Json& j) { j["weight_map"][norm] = 3; }, kInvalid, {norm + " is 3"}},
        {[&](Json& j) { j["weight_map"][norm] = "model-00001-of-00002.safetensors"; },
         kInvalid,
         {"model-00001-of-00002.safetensors: tensor " + norm + " is missing"}},
        {[&](Json& j) { j["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"; },
         kInvalid,
         {"model-00001-of-00002.safetensors: tensor ghost is missing", "index.json"}},
        {[&](Json& j) { j.erase("weight_map"); }, kInvalid, {"weight_map is absent"}},
        {[&](Json& j) { j["weight_map"] = Json::object(); }, kInvalid, {"at least one tensor"}},
        {[&](Json& j) { j["weight_map"] = "x"; }, kInvalid, {"weight_map is \"x\""}},
        {[&](Json& j) { j = 5; }, kInvalid, {"index.json", "is 5, expected an object"}},
        {[&](Json& j) { j["weight_map"].erase(norm); }, kInvalid, {norm + " is missing"}},
        {[&](Json& j) { j["weight_map"][norm] = "config.json"; },
         kInvalid,
         {"config.json: header"}},
    };
    const CheckpointSpec spec;
    const Tensors intact = make_tensors(spec);
    for (const Case& c : cases) {
        SCOPED_TRACE(c.parts.front());
        const TempDir dir;
        write_checkpoint(dir.path(), spec, make_config(spec), intact);
        edit_index(dir.path(), c.edit);
        expect_error([&] { Checkpoint{dir.path()}; }, c.code, c.parts);
    }
}

TEST(Checkpoint, NamesMissingAndDamagedFiles) {
    const TempDir dir;
    write_checkpoint(dir.path(), {});
    const auto shard = dir / "model-00002-of-00002.safetensors";
    const auto size = std::filesystem::file_size(shard);
    std::filesystem::resize_file(shard, size - 1);
    expect_error([&] { Checkpoint{dir.path()}; }, ErrorCode::kInvalidModel,
                 {shard.string(), "data_offsets"});
    std::filesystem::remove(shard);
    expect_error([&] { Checkpoint{dir.path()}; }, ErrorCode::kNotFound, {shard.string()});
    std::filesystem::remove(dir / "model.safetensors.index.json");
    expect_error([&] { Checkpoint{dir.path()}; }, ErrorCode::kNotFound,
                 {dir.path().string(), "model.safetensors.index.json or model.safetensors"});
    expect_error([&] { Checkpoint{dir / "nowhere"}; }, ErrorCode::kNotFound, {"nowhere"});
}

TEST(Checkpoint, WarnsOfTensorsBesideTheIndex) {
    const TempDir dir;
    const CheckpointSpec spec;
    Tensors tensors = make_tensors(spec);
    tensors.push_back({"stray", "U8", {1}, {0}});
    write_checkpoint(dir.path(), spec, make_config(spec), tensors);
    edit_index(dir.path(), [](Json& j) { j["weight_map"].erase("stray"); });
    const auto warnings = Checkpoint(dir.path()).info().warnings;
    ASSERT_EQ(warnings.size(), 1U);
    EXPECT_TRUE(any_contains(warnings, "stray", "model-00002-of-00002.safetensors"));
}

}  // namespace
}  // namespace dsa
