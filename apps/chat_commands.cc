#include "chat_commands.h"

#include <cstdlib>
#include <iomanip>
#include <sstream>

namespace dsa::app {
namespace {

std::string trim(const std::string& text) {
    const char* kSpace = " \t\r\n";
    const size_t begin = text.find_first_not_of(kSpace);
    if (begin == std::string::npos) return "";
    return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// "NAME rest" in two, both trimmed.
std::pair<std::string, std::string> split_word(const std::string& text) {
    const size_t space = text.find_first_of(" \t");
    if (space == std::string::npos) return {text, ""};
    return {text.substr(0, space), trim(text.substr(space))};
}

std::string expand_home(const std::string& path) {
    const char* home = std::getenv("HOME");
    return home != nullptr && path.rfind("~/", 0) == 0 ? home + path.substr(1) : path;
}

// Takes the last message back unless the turn succeeds.
class PendingMessage {
  public:
    PendingMessage(std::vector<Message>& messages, Role role, const std::string& content)
        : messages_(messages) {
        Message message;
        message.role = role;
        message.content = content;
        messages_.push_back(std::move(message));
    }
    ~PendingMessage() {
        if (!kept_) messages_.pop_back();
    }
    PendingMessage(const PendingMessage&) = delete;
    PendingMessage& operator=(const PendingMessage&) = delete;
    void keep() { kept_ = true; }

  private:
    std::vector<Message>& messages_;
    bool kept_ = false;
};

}  // namespace

struct Conversation::Command {
    const char* name;
    const char* argument;  // "" for none
    const char* help;
    void (*run)(Conversation& conversation, const std::string& argument);
};

const std::vector<Conversation::Command>& Conversation::commands() {
    using C = Conversation;
    using Text = const std::string&;
    static const std::vector<Command> table = {
        {"help", "", "this list", [](C& c, Text) { c.help(); }},
        {"reset", "", "forget the conversation; the system text stays",
         [](C& c, Text) { c.reset(); }},
        {"system", "TEXT", "start again with this system text; none: without one",
         [](C& c, Text text) { c.set_system(text); }},
        {"file", "PATH", "read a text file; then ask about it",
         [](C& c, Text path) { c.add_file(path); }},
        {"stats", "", "settings, context, speed of the last reply", [](C& c, Text) { c.stats(); }},
        {"set", "NAME VALUE", "change a setting; without a name: show them",
         [](C& c, Text argument) { c.set(argument); }},
        {"exit", "", "leave (also /quit, Ctrl-D)", nullptr},
    };
    return table;
}

Conversation::Conversation(const Engine& engine, GenerationSettings settings,
                           const std::string& system, const ChatStreams& streams,
                           const std::atomic<bool>& interrupted)
    : engine_(engine),
      streams_(streams),
      interrupted_(interrupted),
      settings_(settings),
      session_(engine.new_session()) {
    if (!system.empty()) set_system(system);
}

bool Conversation::handle(const std::string& line) {
    try {
        return dispatch(trim(line));
    } catch (const std::exception& error) {
        streams_.error << "dsa: error: " << one_line(error.what()) << std::endl;
        return true;
    }
}

bool Conversation::dispatch(const std::string& line) {
    if (line.empty()) return true;
    if (line[0] != '/') {
        say(line);
        return true;
    }
    const auto [name, argument] = split_word(line.substr(1));
    if (name == "exit" || name == "quit") return false;
    for (const Command& command : commands()) {
        if (name != command.name) continue;
        if (command.argument[0] == '\0' && !argument.empty()) {
            throw UsageError("/" + name + " takes no argument, found '" + argument + "'");
        }
        command.run(*this, argument);
        return true;
    }
    throw UsageError("no command /" + name + "; /help lists them");
}

std::vector<int32_t> Conversation::encode() const {
    ChatOptions options;
    options.thinking = settings_.thinking;
    return encode_chat(engine_.tokenizer(), messages_, options);
}

TurnOptions Conversation::turn_options() const {
    TurnOptions options;
    options.settings = settings_;
    options.settings.sampling.seed += replies_;
    options.progress = streams_.interactive && streams_.terminal.err;
    options.interrupted = &interrupted_;
    return options;
}

void Conversation::notice(const std::string& text) {
    if (!text.empty()) streams_.notice << dim(streams_.terminal, text) << std::endl;
}

void Conversation::say(const std::string& text) {
    PendingMessage message(messages_, Role::kUser, text);
    try {
        reply(encode());
    } catch (const Error& error) {
        if (error.code() != ErrorCode::kContextOverflow) throw;
        throw Error(error.code(), one_line(error.what()) + "; dropped, /reset starts over");
    }
    if (messages_.back().role == Role::kAssistant) message.keep();
}

// Leaves the reply behind the user's message, or nothing if there was none.
void Conversation::reply(const std::vector<int32_t>& ids) {
    TurnOptions options = turn_options();
    ReplyPrinter printer(streams_.reply, streams_.terminal, engine_.tokenizer(),
                         settings_.thinking);
    options.on_token = [&](const GeneratedToken& token) { printer.push(token); };
    const Turn turn = run_turn(session_, ids, options);
    if (turn.stopped_in_prompt || turn.reply.ids.empty()) {
        return notice("stopped before there was a reply; the message is dropped");
    }
    printer.finish();
    messages_.push_back(parse_reply(engine_.tokenizer(), turn.reply.ids,
                                    engine_.info().config.eos_token_ids, settings_.thinking));
    last_ = turn;
    ++replies_;
    const std::string stopped = stop_notice(turn.reply.reason, session_.context_length());
    if (streams_.interactive) {
        notice("[" + turn_summary(turn, session_, engine_.info().config) +
               (stopped.empty() ? "" : " | " + stopped) + "]");
    } else if (turn.reply.reason == StopReason::kContextFull) {
        notice(stopped);
    }
}

void Conversation::help() {
    std::ostringstream out;
    for (const Command& command : commands()) {
        const std::string usage = "/" + std::string(command.name) + " " + command.argument;
        out << "  " << std::left << std::setw(18) << usage << command.help << "\n";
    }
    out << "Anything else is a message. Ctrl-C stops a reply, Ctrl-D leaves.";
    notice(out.str());
}

void Conversation::reset() {
    const bool has_system = !messages_.empty() && messages_.front().role == Role::kSystem;
    messages_.resize(has_system ? 1 : 0);
    replies_ = 0;
    notice("the conversation starts over");
}

void Conversation::set_system(const std::string& text) {
    messages_.clear();
    replies_ = 0;
    if (text.empty()) return notice("the conversation starts over, without a system text");
    Message message;
    message.role = Role::kSystem;
    message.content = text;
    messages_.push_back(std::move(message));
    notice("the conversation starts over with this system text");
}

void Conversation::add_file(const std::string& argument) {
    if (argument.empty()) throw UsageError("/file needs a path");
    const std::string path = expand_home(argument);
    const std::string text = read_text_file(path);
    PendingMessage message(messages_, Role::kDocument, text);
    const Turn turn = take_prompt(session_, encode(), turn_options());
    if (turn.stopped_in_prompt) return notice("stopped; the file is dropped");
    message.keep();
    const auto tokens = static_cast<int64_t>(engine_.tokenizer().encode(text).size());
    notice(path + ": " + std::to_string(tokens) + " tokens, " +
           format_number(turn.prompt_speed(), 1) + " tokens/s; ask about it");
}

void Conversation::stats() {
    std::ostringstream out;
    for (const Setting& setting : settings_table()) {
        out << setting.name << " " << setting.get(settings_) << ", ";
    }
    out << "\n"
        << messages_.size() << " messages, " << session_.length() << " of "
        << session_.context_length() << " tokens of context in use ("
        << format_bytes(engine_.plan().total()) << " planned at most)";
    if (replies_ > 0) {
        out << "\nlast turn: " << last_.taken_in << " of " << last_.prompt_tokens
            << " prompt tokens were new, " << last_.reply.ids.size() << " tokens of reply\n"
            << turn_summary(last_, session_, engine_.info().config);
    }
    notice(out.str());
}

void Conversation::set(const std::string& argument) {
    const auto [name, value] = split_word(argument);
    if (name.empty()) return stats();
    change_setting(settings_, name, value);
    notice(name + " is " + value + " now");
}

}  // namespace dsa::app
