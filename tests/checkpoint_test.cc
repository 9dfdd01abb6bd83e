// Opening checkpoints: the given ones, and generated ones in every way of storing them.

#include "engine/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dsa/error.h"
#include "dsa/limits.h"
#include "testing/checkpoint_builder.h"
#include "testing/golden.h"

namespace dsa {
namespace {

using testing::CheckpointSpec;
using testing::make_config;
using testing::make_tensors;
using testing::RawTensor;
using testing::TempDir;
using testing::write_checkpoint;
using Json = nlohmann::json;
using Tensors = std::vector<RawTensor>;

// Compares every field of ModelWeights with the tensors that its name calls for, byte by byte.
// Tensors are random, so that a mix-up cannot pass.
class WeightsChecker {
  public:
    WeightsChecker(const ModelConfig& config, const Tensors& tensors) : c_(config) {
        for (const RawTensor& t : tensors) tensors_[t.name] = &t;
    }

    void check(const ModelWeights& w) {
        linear(w.embed_tokens, "model.embed_tokens.weight");
        ASSERT_EQ(static_cast<int64_t>(w.layers.size()), c_.num_hidden_layers);
        for (size_t l = 0; l < w.layers.size(); ++l) layer(w.layers[l], l);
        vector(w.norm, "model.norm.weight");
        linear(w.lm_head, c_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
        ASSERT_EQ(static_cast<int64_t>(w.mtp.size()), c_.num_nextn_predict_layers);
        for (size_t i = 0; i < w.mtp.size(); ++i) mtp(w.mtp[i], w.layers.size() + i, w);
        EXPECT_EQ(seen_.size(), tensors_.size());
    }

  private:
    const RawTensor& at(const std::string& name) {
        const auto it = tensors_.find(name);
        if (it == tensors_.end()) throw std::runtime_error("the test expects a tensor " + name);
        seen_.insert(name);
        return *it->second;
    }

    void linear(const Weight& w, const std::string& name) {
        const RawTensor& t = at(name);
        ASSERT_EQ((std::vector<int64_t>{w.n, w.k}), t.shape) << name;
        ASSERT_EQ(to_string(w.dtype), t.dtype) << name;
        EXPECT_EQ(std::memcmp(w.data, t.bytes.data(), t.bytes.size()), 0) << name;
        EXPECT_EQ(reinterpret_cast<uintptr_t>(w.data) % (w.is_fp8() ? 1 : 2), 0U) << name;
        ASSERT_EQ(w.scale_inv != nullptr, w.is_fp8()) << name;
        if (!w.is_fp8()) return;
        const RawTensor& s = at(name + "_scale_inv");
        EXPECT_EQ(reinterpret_cast<uintptr_t>(w.scale_inv) % 4, 0U) << name;
        EXPECT_EQ(std::memcmp(w.scale_inv, s.bytes.data(), s.bytes.size()), 0) << name;
    }

    void vector(const float* v, const std::string& name) {
        const RawTensor& t = at(name);
        ASSERT_NE(v, nullptr) << name;
        ASSERT_EQ(reinterpret_cast<uintptr_t>(v) % 4, 0U) << name;
        for (size_t i = 0; i < static_cast<size_t>(t.shape[0]); ++i) {
            float expected = 0;
            if (t.dtype == "F32") {
                std::memcpy(&expected, &t.bytes[i * 4], 4);
            } else {
                bf16 narrow;
                std::memcpy(&narrow, &t.bytes[i * 2], 2);
                expected = to_float(narrow);
            }
            ASSERT_EQ(v[i], expected) << name << " " << i;
        }
    }

    void mlp(const MlpWeights& w, const std::string& p) {
        linear(w.gate_proj, p + "gate_proj.weight");
        linear(w.up_proj, p + "up_proj.weight");
        linear(w.down_proj, p + "down_proj.weight");
    }

    void attention(const AttentionWeights& w, const std::string& p) {
        linear(w.q_a_proj, p + "q_a_proj.weight");
        vector(w.q_a_layernorm, p + "q_a_layernorm.weight");
        linear(w.q_b_proj, p + "q_b_proj.weight");
        linear(w.kv_a_proj_with_mqa, p + "kv_a_proj_with_mqa.weight");
        vector(w.kv_a_layernorm, p + "kv_a_layernorm.weight");
        linear(w.kv_b_proj, p + "kv_b_proj.weight");
        linear(w.o_proj, p + "o_proj.weight");
        linear(w.indexer.wq_b, p + "indexer.wq_b.weight");
        linear(w.indexer.wk, p + "indexer.wk.weight");
        linear(w.indexer.weights_proj, p + "indexer.weights_proj.weight");
        vector(w.indexer.k_norm_weight, p + "indexer.k_norm.weight");
        vector(w.indexer.k_norm_bias, p + "indexer.k_norm.bias");
    }

    void layer(const LayerWeights& w, size_t l) {
        const std::string p = "model.layers." + std::to_string(l) + ".";
        vector(w.input_layernorm, p + "input_layernorm.weight");
        attention(w.self_attn, p + "self_attn.");
        vector(w.post_attention_layernorm, p + "post_attention_layernorm.weight");
        const bool is_moe = tensors_.count(p + "mlp.gate.weight") != 0;
        ASSERT_EQ(w.is_moe, is_moe) << p;
        if (!is_moe) return mlp(w.mlp, p + "mlp.");
        linear(w.moe.gate, p + "mlp.gate.weight");
        vector(w.moe.e_score_correction_bias, p + "mlp.gate.e_score_correction_bias");
        ASSERT_EQ(static_cast<int64_t>(w.moe.experts.size()), c_.n_routed_experts);
        for (size_t e = 0; e < w.moe.experts.size(); ++e)
            mlp(w.moe.experts[e], p + "mlp.experts." + std::to_string(e) + ".");
        if (c_.n_shared_experts > 0) mlp(w.moe.shared_experts, p + "mlp.shared_experts.");
    }

    void mtp(const MtpWeights& w, size_t l, const ModelWeights& model) {
        const std::string p = "model.layers." + std::to_string(l) + ".";
        vector(w.enorm, p + "enorm.weight");
        vector(w.hnorm, p + "hnorm.weight");
        linear(w.eh_proj, p + "eh_proj.weight");
        layer(w.layer, l);
        vector(w.shared_head_norm, p + "shared_head.norm.weight");
        if (tensors_.count(p + "embed_tokens.weight") != 0) {
            linear(w.embed_tokens, p + "embed_tokens.weight");
            linear(w.shared_head, p + "shared_head.head.weight");
        } else {
            EXPECT_EQ(w.embed_tokens.data, model.embed_tokens.data);
            EXPECT_EQ(w.shared_head.data, model.lm_head.data);
        }
    }

    const ModelConfig& c_;
    std::map<std::string, const RawTensor*> tensors_;
    std::set<std::string> seen_;
};

Tensors read_files(const std::filesystem::path& dir) {
    Tensors tensors;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
        if (entry.path().extension() != ".safetensors") continue;
        const SafetensorsFile file(entry.path());
        for (const auto& [name, t] : file.tensors()) {
            const auto* begin = static_cast<const uint8_t*>(t.data);
            tensors.push_back({name, t.dtype, t.shape, {begin, begin + t.bytes}});
        }
    }
    return tensors;
}

int64_t numel(const RawTensor& t) {
    int64_t n = 1;
    for (const int64_t d : t.shape) n *= d;
    return n;
}

// Sums of ModelInfo, counted from the names in the files.
void check_sums(const ModelInfo& info, const Tensors& tensors) {
    int64_t bytes = 0;
    int64_t all = 0;
    int64_t mtp = 0;
    double active = 0;
    std::map<std::string, int64_t> counts;
    const ModelConfig& c = info.config;
    for (const RawTensor& t : tensors) {
        bytes += static_cast<int64_t>(t.bytes.size());
        counts[t.dtype] += 1;
        if (t.name.ends_with("_scale_inv")) continue;
        all += numel(t);
        const bool layer = t.name.rfind("model.layers.", 0) == 0;
        const bool is_mtp = layer && std::stoll(t.name.substr(13)) >= c.num_hidden_layers;
        const double share = t.name.find(".experts.") == std::string::npos
                                 ? 1.0
                                 : static_cast<double>(c.num_experts_per_tok) /
                                       static_cast<double>(c.n_routed_experts);
        if (is_mtp) {
            mtp += numel(t);
        } else if (t.name != "model.embed_tokens.weight" || c.tie_word_embeddings) {
            active += share * static_cast<double>(numel(t));
        }
    }
    EXPECT_EQ(info.weight_bytes, bytes);
    EXPECT_EQ(info.parameters, all);
    EXPECT_EQ(info.mtp_parameters, mtp);
    EXPECT_EQ(info.active_parameters, std::llround(active));
    const TokenCost cost = token_cost(info, 0);
    EXPECT_EQ(cost.linear_ops + cost.head_ops, 2.0 * std::round(active));
    EXPECT_EQ(cost.head_ops, 2.0 * static_cast<double>(c.vocab_size * c.hidden_size));
    ASSERT_EQ(info.tensors.size(), counts.size());
    for (const TensorSummary& s : info.tensors) EXPECT_EQ(s.count, counts[s.dtype]) << s.dtype;
}

TEST(Checkpoint, OpensTheGivenModels) {
    const std::string golden = std::string(DSA_TEST_DATA) + "/golden/checkpoints/";
    for (const std::string& path :
         {golden + "tiny-rand", golden + "tiny-planted", std::string(DSA_MODELS) + "/dsa-mini"}) {
        SCOPED_TRACE(path);
        const Checkpoint checkpoint(path);
        const ModelInfo& info = checkpoint.info();
        EXPECT_EQ(info.path, path);
        EXPECT_TRUE(info.warnings.empty()) << info.warnings.front();
        EXPECT_EQ(info.has_tokenizer, path.ends_with("dsa-mini"));
        const Tensors tensors = read_files(path);
        WeightsChecker(info.config, tensors).check(checkpoint.weights());
        check_sums(info, tensors);
        EXPECT_EQ(checkpoint.weights().mtp.size(), path.ends_with("dsa-mini") ? 1U : 0U);
    }
}

struct Variant {
    const char* name;
    std::function<void(CheckpointSpec&)> set;
};

TEST(Checkpoint, OpensEveryWayOfStoring) {
    const std::vector<Variant> variants = {
        {"default", [](CheckpointSpec&) {}},
        {"one file", [](CheckpointSpec& s) { s.shards = 1; }},
        {"five shards", [](CheckpointSpec& s) { s.shards = 5; }},
        {"f32 norms", [](CheckpointSpec& s) { s.norms_f32 = true; }},
        {"bf16 k_norm", [](CheckpointSpec& s) { s.k_norm_bf16 = true; }},
        {"plain scales", [](CheckpointSpec& s) { s.plain_scales = true, s.ue8m0 = false; }},
        {"fp8 head", [](CheckpointSpec& s) { s.bf16_lm_head = false; }},
        {"all bf16", [](CheckpointSpec& s) { s.bf16_linears = "."; }},
        {"some bf16", [](CheckpointSpec& s) { s.bf16_linears = "kv_b_proj|experts\\.[02]\\."; }},
        {"all fp8", [](CheckpointSpec& s) { s.fp8_linears = ".", s.num_nextn_predict_layers = 1; }},
        {"scales apart", [](CheckpointSpec& s) { s.scales_in_other_shard = true, s.shards = 3; }},
        {"misaligned", [](CheckpointSpec& s) { s.misalign = true; }},
        {"misaligned f32", [](CheckpointSpec& s) { s.misalign = s.norms_f32 = true; }},
        {"mtp", [](CheckpointSpec& s) { s.num_nextn_predict_layers = 1; }},
        {"two mtp", [](CheckpointSpec& s) { s.num_nextn_predict_layers = 2; }},
        {"mtp embeddings",
         [](CheckpointSpec& s) { s.num_nextn_predict_layers = 1, s.mtp_own_embeddings = true; }},
        {"tied", [](CheckpointSpec& s) { s.tie_word_embeddings = true; }},
        {"dense", [](CheckpointSpec& s) { s.n_routed_experts = s.n_shared_experts = 0; }},
        {"every second", [](CheckpointSpec& s) { s.num_hidden_layers = 5, s.moe_layer_freq = 2; }},
        {"no shared", [](CheckpointSpec& s) { s.n_shared_experts = 0; }},
        {"two shared", [](CheckpointSpec& s) { s.n_shared_experts = 2; }},
        {"all moe", [](CheckpointSpec& s) { s.first_k_dense_replace = 0; }},
        {"odd sizes",
         [](CheckpointSpec& s) {
             s.hidden_size = 131, s.q_lora_rank = 67, s.vocab_size = 77, s.intermediate_size = 259;
             s.moe_intermediate_size = 33, s.index_n_heads = 1, s.num_attention_heads = 1;
         }},
    };
    for (const Variant& v : variants) {
        SCOPED_TRACE(v.name);
        CheckpointSpec spec;
        v.set(spec);
        Json config = make_config(spec);
        if (spec.n_routed_experts == 0)
            for (const char* key : {"n_routed_experts", "n_group", "topk_group"}) config.erase(key);
        const Tensors tensors = make_tensors(spec);
        const TempDir dir;
        write_checkpoint(dir.path(), spec, config, tensors);
        const Checkpoint checkpoint(dir.path());
        const auto& warnings = checkpoint.info().warnings;
        EXPECT_TRUE(warnings.empty()) << warnings.front();
        WeightsChecker(checkpoint.config(), tensors).check(checkpoint.weights());
        check_sums(checkpoint.info(), tensors);
    }
}

TEST(Checkpoint, CopiesOnlyWhatCannotBeUsedInPlace) {
    const auto copied = [](const CheckpointSpec& spec) {
        const TempDir dir;
        write_checkpoint(dir.path(), spec);
        return Checkpoint(dir.path()).info().copied_bytes;
    };
    CheckpointSpec in_place;
    in_place.norms_f32 = true;
    EXPECT_EQ(copied(in_place), 0);
    int64_t widened = 0;
    int64_t unaligned = 0;
    for (const RawTensor& t : make_tensors({})) {
        const auto up = [](int64_t n) { return (n + 63) / 64 * 64; };
        if (t.dtype == "BF16" && t.shape.size() == 1) {
            widened += up(numel(t) * 4);
        } else if (t.dtype != "F8_E4M3") {
            unaligned += up(static_cast<int64_t>(t.bytes.size()));
        }
    }
    EXPECT_EQ(copied({}), widened);
    CheckpointSpec misaligned;
    misaligned.misalign = true;
    EXPECT_EQ(copied(misaligned), widened + unaligned);
}

TEST(Checkpoint, MovesWithItsPointers) {
    const TempDir dir;
    CheckpointSpec spec;
    spec.misalign = true;
    const Tensors tensors = make_tensors(spec);
    write_checkpoint(dir.path(), spec);
    Checkpoint first(dir.path());
    const Checkpoint second(std::move(first));
    WeightsChecker(second.config(), tensors).check(second.weights());
}

// The builder itself: the same values however they are stored, and e4m3's range well used.
TEST(CheckpointBuilder, ValuesDoNotDependOnStorage) {
    CheckpointSpec other;
    other.misalign = other.scales_in_other_shard = true;
    other.shards = 4;
    const Tensors a = make_tensors({});
    const Tensors b = make_tensors(other);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].bytes, b[i].bytes) << a[i].name;
    other.seed = 2;
    EXPECT_NE(make_tensors(other)[0].bytes, a[0].bytes);
}

TEST(CheckpointBuilder, ScalesFollowTheSpec) {
    for (const bool plain : {false, true}) {
        CheckpointSpec spec;
        spec.plain_scales = plain;
        int64_t powers = 0;
        int64_t scales = 0;
        for (const RawTensor& t : make_tensors(spec)) {
            uint8_t largest = 0;
            if (t.dtype == "F8_E4M3") {
                for (const uint8_t code : t.bytes)
                    largest = std::max<uint8_t>(largest, code & 0x7f);
                EXPECT_GE(largest, 0x76) << t.name;  // 224: half of the largest value
                EXPECT_LE(largest, 0x7e) << t.name;
            }
            if (!t.name.ends_with("_scale_inv")) continue;
            for (size_t i = 0; i < t.bytes.size(); i += 4) {
                float s = 0;
                std::memcpy(&s, &t.bytes[i], 4);
                int exponent = 0;
                powers += std::frexp(s, &exponent) == 0.5F;
                ++scales;
            }
        }
        EXPECT_EQ(powers, plain ? 0 : scales);
    }
}

TEST(Golden, CasesFitTheirModels) {
    for (const std::string name :
         {"tiny-rand", "tiny-planted", "dsa-mini/chat", "dsa-mini/chat-turns", "dsa-mini/text-1500",
          "dsa-mini/recall-3000"}) {
        SCOPED_TRACE(name);
        const testing::GoldenCase c = testing::load_golden(name);
        const ModelConfig config = read_config(c.model);
        EXPECT_EQ(c.V, config.vocab_size);
        EXPECT_EQ(c.H, config.hidden_size);
        EXPECT_EQ(c.L, config.num_hidden_layers);
        if (c.k != 0) {
            EXPECT_EQ(c.k, config.index_topk);
        }
        EXPECT_EQ(static_cast<int64_t>(c.logits.size()), c.R * c.V);
        EXPECT_EQ(static_cast<int64_t>(c.hidden.size()), c.L * c.R * c.H);
        const auto last = c.logits.end() - c.V;
        EXPECT_EQ(std::max_element(last, c.logits.end()) - last, c.greedy_ids.at(0));
        EXPECT_EQ(c.rows.back(), c.S - 1);
        if (name.rfind("tiny-", 0) != 0) continue;
        EXPECT_EQ(c.K, config.num_experts_per_tok);
        EXPECT_EQ(static_cast<int64_t>(c.index_scores.size()), c.L * c.Q * c.S);
        EXPECT_EQ(c.logits_decode.size(), c.greedy_ids.size() * static_cast<size_t>(c.V));
    }
    EXPECT_THROW(testing::load_golden("nothing"), Error);
}

}  // namespace
}  // namespace dsa
