// `dsa generate`: one prompt, one reply.

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "common.h"
#include "dsa/chat.h"

namespace dsa::app {
namespace {

using Json = nlohmann::ordered_json;

struct GenerateFlags {
    ModelFlags model;
    SettingFlags settings;
    std::string prompt, file, system;
    bool raw = false;
    bool json = false;
};

void check_usage(const GenerateFlags& flags, bool thinking) {
    if (flags.prompt.empty() && !(flags.raw && !flags.file.empty())) {
        throw UsageError("--prompt is required; only with --raw, --file can stand alone");
    }
    if (flags.raw && (thinking || !flags.system.empty())) {
        throw UsageError("--raw has no chat: --system and --thinking do not go with it");
    }
}

// Plain text behind the begin token.
std::vector<int32_t> encode_raw(const Engine& engine, const std::string& text) {
    std::vector<int32_t> ids = engine.tokenizer().encode(text);
    const int32_t begin = engine.info().config.bos_token_id;
    if (begin >= 0) ids.insert(ids.begin(), begin);
    return ids;
}

std::vector<int32_t> encode_prompt(const Engine& engine, const GenerateFlags& flags,
                                   const std::string& document, bool thinking) {
    if (flags.raw) return encode_raw(engine, document + flags.prompt);
    std::vector<Message> messages;
    const auto add = [&](Role role, const std::string& content) {
        if (content.empty()) return;
        Message message;
        message.role = role;
        message.content = content;
        messages.push_back(std::move(message));
    };
    add(Role::kSystem, flags.system);
    add(Role::kDocument, document);
    add(Role::kUser, flags.prompt);
    ChatOptions options;
    options.thinking = thinking;
    return encode_chat(engine.tokenizer(), messages, options);
}

Json to_json(const Engine& engine, const GenerateFlags& flags, const GenerationSettings& settings,
             const Turn& turn) {
    const EngineOptions& options = engine.options();
    Json out;
    out["model"] = folder_name(engine.info().path);
    out["isa"] = options.isa;
    out["precision"] = to_string(options.precision);
    out["threads"] = options.threads;
    out["context_length"] = options.context_length;
    for (const Setting& setting : settings_table()) {
        const std::string value = setting.get(settings);
        const bool number = std::string(setting.name) != "thinking";
        out[setting.name] = number ? Json::parse(value) : Json(value == "on");
    }
    out["prompt_tokens"] = turn.prompt_tokens;
    out["prompt_seconds"] = turn.prompt_seconds;
    out["prompt_tokens_per_second"] = turn.prompt_speed();
    out["generated_tokens"] = turn.reply.ids.size();
    out["generated_seconds"] = turn.reply_seconds;
    out["generated_tokens_per_second"] = turn.reply_speed();
    out["stop_reason"] = to_string(turn.reply.reason);
    if (settings.thinking && !flags.raw) {
        const Message reply = parse_reply(engine.tokenizer(), turn.reply.ids,
                                          engine.info().config.eos_token_ids, true);
        out["reasoning"] = reply.reasoning;
        out["text"] = reply.content;
    } else {
        out["text"] = turn.reply.text;
    }
    out["ids"] = turn.reply.ids;
    return out;
}

int generate(const GenerateFlags& flags) {
    GenerationSettings asked;  // for the checks that come before a model is opened
    for (const auto& [name, value] : flags.settings.given) change_setting(asked, name, value);
    check_usage(flags, asked.thinking);
    const std::string document = flags.file.empty() ? "" : read_text_file(flags.file);

    const Engine engine(model_folder(flags.model), engine_options(flags.model));
    const GenerationSettings settings = make_settings(engine.info().config, flags.settings);
    const Terminal terminal = detect_terminal();
    const auto ids = encode_prompt(engine, flags, document, settings.thinking);
    Session session = engine.new_session();
    ReplyPrinter printer(std::cout, terminal, engine.tokenizer(), settings.thinking);
    TurnOptions options;
    options.settings = settings;
    options.progress = terminal.err;
    if (!flags.json) options.on_token = [&](const GeneratedToken& token) { printer.push(token); };
    const Turn turn = run_turn(session, ids, options);
    if (flags.json) {
        std::cout << to_json(engine, flags, settings, turn).dump(1) << std::endl;
        return 0;
    }
    printer.finish();
    if (terminal.err) {
        const std::string summary = turn_summary(turn, session, engine.info().config);
        std::cerr << dim(terminal, "[" + summary + "]") << "\n";
    }
    const std::string stopped = stop_notice(turn.reply.reason, session.context_length());
    if (turn.reply.reason == StopReason::kContextFull) std::cerr << "dsa: " << stopped << "\n";
    return 0;
}

}  // namespace

Command add_generate(CLI::App& app) {
    CLI::App* command = app.add_subcommand("generate", "Reply to one prompt");
    const auto flags = std::make_shared<GenerateFlags>();
    add_model_flags(*command, flags->model);
    command->add_option("--prompt", flags->prompt, "What to reply to")->type_name("TEXT");
    command->add_option("--file", flags->file, "A text that the prompt asks about")
        ->type_name("PATH");
    command->add_flag("--raw", flags->raw, "Continue the text (file, then prompt); no chat");
    command->add_option("--system", flags->system, "System text")->type_name("TEXT");
    add_setting_flags(*command, flags->settings);
    command->add_flag("--json", flags->json, "Print one JSON object with ids and timing");
    command->footer(
        "Example:\n  dsa generate --file notes.txt --prompt \"Who wrote this?\" --temperature 0");
    return {command, [flags] { return generate(*flags); }};
}

}  // namespace dsa::app
