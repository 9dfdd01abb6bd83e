// `dsa chat`: a conversation, on a terminal or line by line from stdin.

#include <editline/readline.h>
#include <signal.h>

#include <atomic>
#include <clocale>
#include <cstdlib>
#include <iostream>
#include <memory>

#include "chat_commands.h"
#include "commands.h"
#include "common.h"

namespace dsa::app {
namespace {

struct ChatFlags {
    ModelFlags model;
    SettingFlags settings;
    std::string system;
};

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set in a signal handler");

void catch_interrupt() {
    struct sigaction action = {};
    action.sa_handler = [](int) { interrupted = true; };
    sigaction(SIGINT, &action, nullptr);  // no SA_RESTART: Ctrl-C ends the reading of a line
}

void print_banner(const Engine& engine) {
    const ModelInfo& info = engine.info();
    const EngineOptions& options = engine.options();
    std::cout << folder_name(info.path) << ": " << format_count(info.parameters) << " parameters, "
              << format_count(info.active_parameters) << " used for a token\n"
              << options.isa << ", " << to_string(options.precision) << ", " << options.threads
              << " threads, context " << options.context_length << " tokens, "
              << format_bytes(engine.plan().total()) << " of memory at most\n";
    for (const std::string& warning : engine.warnings())
        std::cout << "warning: " << warning << "\n";
    std::cout << "/help shows the commands, /file PATH reads a text to ask about\n" << std::endl;
}

// libedit reads whole characters only in a multibyte locale.
void use_utf8() {
    if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1) {
        std::setlocale(LC_CTYPE, "C.UTF-8");
    }
}

void talk_on_terminal(Conversation& conversation) {
    use_utf8();
    catch_interrupt();
    using_history();
    for (bool going_on = true; going_on;) {
        interrupted = false;
        const std::unique_ptr<char, void (*)(void*)> line(readline("> "), std::free);
        if (line == nullptr) {
            std::cout << std::endl;
            if (interrupted) continue;  // Ctrl-C: a fresh line
            break;                      // Ctrl-D
        }
        if (*line != '\0') add_history(line.get());
        interrupted = false;
        going_on = conversation.handle(line.get());
    }
}

void talk_on_pipes(Conversation& conversation) {
    std::string line;
    while (std::getline(std::cin, line) && conversation.handle(line)) {
    }
}

int chat(const ChatFlags& flags) {
    const Engine engine(model_folder(flags.model), engine_options(flags.model));
    engine.tokenizer();  // throws where there is none
    const Terminal terminal = detect_terminal();
    const bool interactive = terminal.in && terminal.out;
    const ChatStreams streams{std::cout, interactive ? std::cout : std::cerr, std::cerr, terminal,
                              interactive};
    if (interactive) print_banner(engine);
    const GenerationSettings settings = make_settings(engine.info().config, flags.settings);
    Conversation conversation(engine, settings, flags.system, streams, interrupted);
    interactive ? talk_on_terminal(conversation) : talk_on_pipes(conversation);
    return 0;
}

}  // namespace

Command add_chat(CLI::App& app) {
    CLI::App* command = app.add_subcommand("chat", "Talk with a model");
    const auto flags = std::make_shared<ChatFlags>();
    add_model_flags(*command, flags->model);
    add_setting_flags(*command, flags->settings);
    command->add_option("--system", flags->system, "System text")->type_name("TEXT");
    command->footer(
        "Commands inside: /help. Without a terminal, turns and commands are read from stdin, one a "
        "line.\n\n"
        "Example:\n  dsa chat --temperature 0.5 --system \"You answer briefly.\"");
    return {command, [flags] { return chat(*flags); }};
}

}  // namespace dsa::app
