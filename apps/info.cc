// `dsa info`: what a checkpoint is and what it needs. Opens nothing for inference unless it shall
// measure, so a model larger than the memory can be looked at.

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "commands.h"
#include "common.h"
#include "info_measure.h"

namespace dsa::app {
namespace {

using Json = nlohmann::ordered_json;

struct InfoFlags {
    ModelFlags model;
    bool json = false;
    bool reference = false;
    bool measure = false;
};

EngineOptions options_of(const InfoFlags& flags) {
    EngineOptions options = engine_options(flags.model);
    options.reference = flags.reference;
    return options;
}

struct PlanRow {
    MemoryPlan plan;
    bool is_default = false;
};

// 2K, 4K, ... up to what the model was made for, with the default and the one asked for.
std::vector<PlanRow> plan_rows(const ModelInfo& info, const InfoFlags& flags) {
    const int64_t asked = flags.model.context_length;
    const int64_t longest = info.config.max_position_embeddings;
    const int64_t standard = default_context_length(info.config);
    std::vector<int64_t> lengths = {standard, longest};
    for (int64_t length = 2048; length < longest; length *= 2) lengths.push_back(length);
    if (asked > 0) lengths.push_back(asked);
    std::sort(lengths.begin(), lengths.end());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());

    std::vector<PlanRow> rows;
    EngineOptions options = options_of(flags);
    const int64_t chosen = asked > 0 ? asked : standard;
    for (const int64_t length : lengths) {
        options.context_length = length;
        rows.push_back({plan_memory(info, options), length == chosen});
    }
    return rows;
}

// What the chat flags can do with this vocabulary.
bool can_think(const ModelInfo& info) {
    if (!info.has_tokenizer) return false;
    const auto tokenizer = open_tokenizer(info.path, info.config.vocab_size);
    return tokenizer != nullptr && tokenizer->find_special("<think>").has_value() &&
           tokenizer->find_special("</think>").has_value();
}

Json config_json(const ModelConfig& c) {
    Json out;
    out["model_type"] = c.model_type;
    out["architecture"] = c.architecture;
    const std::pair<const char*, int64_t> numbers[] = {
        {"vocab_size", c.vocab_size},
        {"hidden_size", c.hidden_size},
        {"num_hidden_layers", c.num_hidden_layers},
        {"num_nextn_predict_layers", c.num_nextn_predict_layers},
        {"max_position_embeddings", c.max_position_embeddings},
        {"num_attention_heads", c.num_attention_heads},
        {"q_lora_rank", c.q_lora_rank},
        {"kv_lora_rank", c.kv_lora_rank},
        {"qk_nope_head_dim", c.qk_nope_head_dim},
        {"qk_rope_head_dim", c.qk_rope_head_dim},
        {"v_head_dim", c.v_head_dim},
        {"index_n_heads", c.index_n_heads},
        {"index_head_dim", c.index_head_dim},
        {"index_topk", c.index_topk},
        {"intermediate_size", c.intermediate_size},
        {"first_k_dense_replace", c.first_k_dense_replace},
        {"moe_intermediate_size", c.moe_intermediate_size},
        {"n_routed_experts", c.n_routed_experts},
        {"n_shared_experts", c.n_shared_experts},
        {"num_experts_per_tok", c.num_experts_per_tok},
        {"n_group", c.n_group},
        {"topk_group", c.topk_group},
    };
    for (const auto& [name, value] : numbers) out[name] = value;
    out["indexer_rope_interleave"] = c.indexer_rope_interleave;
    out["rope_theta"] = c.rope_theta;
    out["rope_factor"] = c.rope_factor;
    out["quant_method"] = c.quant_method;
    out["eos_token_ids"] = c.eos_token_ids;
    return out;
}

Json to_json(const Measurement& m) {
    return {{"context_length", m.plan.context_length},
            {"threads", m.options.threads},
            {"isa", m.options.isa},
            {"precision", to_string(m.options.precision)},
            {"reference", m.options.reference},
            {"open_seconds", m.open_seconds},
            {"load_seconds", m.load_seconds},
            {"prompt_seconds", m.prompt_seconds},
            {"weights", m.weights},
            {"opened", m.opened},
            {"session", m.session},
            {"peak", m.peak},
            {"plan_weights", m.plan.weights},
            {"plan_opened", m.plan.process + m.plan.copies + m.plan.tables},
            {"plan_session", m.plan.kv_cache + m.plan.scratch},
            {"plan", m.plan.total()},
            {"ratio", m.ratio()}};
}

Json to_json(const ModelInfo& info, const std::vector<PlanRow>& rows) {
    Json out;
    out["path"] = info.path;
    out["config"] = config_json(info.config);
    out["parameters"] = {{"total", info.parameters},
                         {"active", info.active_parameters},
                         {"mtp", info.mtp_parameters}};
    out["tensors"] = Json::array();
    for (const TensorSummary& t : info.tensors) {
        out["tensors"].push_back(
            {{"dtype", t.dtype}, {"count", t.count}, {"elements", t.elements}, {"bytes", t.bytes}});
    }
    out["weight_bytes"] = info.weight_bytes;
    out["copied_bytes"] = info.copied_bytes;
    out["memory_plans"] = Json::array();
    for (const PlanRow& row : rows) {
        const MemoryPlan& p = row.plan;
        out["memory_plans"].push_back({{"context_length", p.context_length},
                                       {"weights", p.weights},
                                       {"copies", p.copies},
                                       {"kv_cache", p.kv_cache},
                                       {"scratch", p.scratch},
                                       {"tables", p.tables},
                                       {"process", p.process},
                                       {"total", p.total()},
                                       {"default", row.is_default}});
    }
    out["tokenizer"] = info.has_tokenizer;
    out["thinking"] = can_think(info);
    out["warnings"] = info.warnings;
    return out;
}

void print_line(const char* label, const std::string& text) {
    std::cout << std::left << std::setw(14) << label << text << "\n";
}

void print_architecture(const ModelConfig& c) {
    std::ostringstream layers, attention, indexer, experts, rope;
    layers << c.num_hidden_layers << " (" << c.first_k_dense_replace << " dense) + "
           << c.num_nextn_predict_layers << " MTP, hidden " << c.hidden_size << ", vocabulary "
           << c.vocab_size;
    attention << "MLA, " << c.num_attention_heads << " heads, latent " << c.kv_lora_rank << " + "
              << c.qk_rope_head_dim << " RoPE, query rank " << c.q_lora_rank;
    indexer << c.index_n_heads << " heads of " << c.index_head_dim << ", top " << c.index_topk
            << " tokens, RoPE " << (c.indexer_rope_interleave ? "interleaved" : "half-split");
    experts << c.n_routed_experts << " routed in " << c.n_group << " groups, "
            << c.num_experts_per_tok << " a token, " << c.n_shared_experts << " shared, width "
            << c.moe_intermediate_size;
    rope << "theta " << c.rope_theta;
    if (c.rope_factor != 1.0) {
        rope << ", YaRN " << c.rope_factor << " x " << c.rope_original_max_position_embeddings;
    }
    print_line("architecture", c.architecture + " (" + c.model_type + ")");
    print_line("layers", layers.str());
    print_line("attention", attention.str());
    print_line("indexer", indexer.str());
    print_line("experts", experts.str());
    print_line("positions", std::to_string(c.max_position_embeddings) + ", " + rope.str());
    print_line("quantisation", c.quant_method.empty() ? "none" : c.quant_method);
}

void print_tensors(const ModelInfo& info) {
    print_line("parameters", format_count(info.parameters) + ": " +
                                 format_count(info.active_parameters) + " used for a token, " +
                                 format_count(info.mtp_parameters) + " MTP");
    for (const TensorSummary& t : info.tensors) {
        print_line("tensors", t.dtype + ": " + std::to_string(t.count) + " tensors, " +
                                  format_count(t.elements) + " elements, " + format_bytes(t.bytes));
    }
}

void print_plans(const std::vector<PlanRow>& rows) {
    std::cout << "\nmemory for one session, at most\n" << std::right;
    const auto cell = [](const std::string& text) { std::cout << std::setw(12) << text; };
    for (const char* head :
         {"context", "weights", "copies", "cache", "scratch", "tables", "process", "total"}) {
        cell(head);
    }
    std::cout << "\n";
    for (const PlanRow& row : rows) {
        const MemoryPlan& p = row.plan;
        cell(std::to_string(p.context_length));
        for (const int64_t bytes :
             {p.weights, p.copies, p.kv_cache, p.scratch, p.tables, p.process, p.total()}) {
            cell(format_bytes(bytes));
        }
        std::cout << (row.is_default ? "  <- opens with this\n" : "\n");
    }
}

void print_measurement(const Measurement& m) {
    std::cout << "\nmeasured: " << m.plan.context_length << " tokens, "
              << (m.options.reference ? "reference" : m.options.isa) << ", "
              << to_string(m.options.precision) << ", " << m.options.threads << " threads\n";
    print_line("open", format_number(m.open_seconds, 3) + " s, weights read in " +
                           format_number(m.load_seconds, 3) + " s, prompt in " +
                           format_number(m.prompt_seconds, 2) + " s");
    std::cout << std::left << std::setw(36) << "" << std::right << std::setw(12) << "resident"
              << std::setw(12) << "plan" << std::setw(8) << "ratio"
              << "\n";
    const auto line = [](const char* label, int64_t measured, int64_t planned) {
        std::cout << std::left << std::setw(36) << label << std::right << std::setw(12)
                  << format_bytes(measured) << std::setw(12) << format_bytes(planned)
                  << std::setw(8)
                  << format_number(static_cast<double>(measured) / static_cast<double>(planned), 3)
                  << "\n";
    };
    const MemoryPlan& p = m.plan;
    line("weights", m.weights, p.weights);
    line("process, copies and tables", m.opened, p.process + p.copies + p.tables);
    line("session: cache and scratch", m.session, p.kv_cache + p.scratch);
    line("peak of the process (VmHWM)", m.peak, p.total());
}

int info(const InfoFlags& flags) {
    // First, while the process holds nothing else.
    std::optional<Measurement> measured;
    if (flags.measure) measured = measure(model_folder(flags.model), options_of(flags));
    const ModelInfo model = inspect_model(model_folder(flags.model));
    const std::vector<PlanRow> rows = plan_rows(model, flags);
    if (flags.json) {
        Json json = to_json(model, rows);
        if (measured) json["measured"] = to_json(*measured);
        std::cout << json.dump(1) << std::endl;
        return 0;
    }
    print_line("model", folder_name(model.path) + " (" + model.path + ")");
    print_architecture(model.config);
    print_tensors(model);
    print_line("chat", !model.has_tokenizer ? "no tokenizer: token ids only"
                       : can_think(model)   ? "yes, thinking on or off"
                                            : "yes, without thinking");
    print_line(
        "options",
        "--precision bf16|fp8|int8, --isa portable|avx2|avx512|avx512_bf16|amx, --ctx up to " +
            std::to_string(model.config.max_position_embeddings));
    print_plans(rows);
    if (measured) print_measurement(*measured);
    for (const std::string& warning : model.warnings) std::cout << "warning: " << warning << "\n";
    return 0;
}

}  // namespace

Command add_info(CLI::App& app) {
    CLI::App* command = app.add_subcommand("info", "Describe a model and the memory it needs");
    const auto flags = std::make_shared<InfoFlags>();
    add_model_flags(*command, flags->model);
    command->add_option("MODEL", flags->model.model, "Model folder, as --model")
        ->type_name("DIR")
        ->excludes("--model");
    command->add_flag("--json", flags->json, "Print one JSON object");
    command->add_flag("--reference", flags->reference, "Plan for the plain fp32 forward pass");
    command->add_flag("--measure", flags->measure,
                      "Open the model, fill a context of --ctx tokens, compare with the plan");
    command->footer("Example:\n  dsa info /models/DeepSeek-V3.2 --ctx 100000");
    return {command, [flags] { return info(*flags); }};
}

}  // namespace dsa::app
