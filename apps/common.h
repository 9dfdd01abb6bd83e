#pragma once
// What the subcommands share: flags, sampling settings, running one turn with progress and timing,
// and the way numbers are printed.

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dsa/engine.h"

namespace dsa::app {

// Wrong usage found after the command line was parsed; exit code 2.
class UsageError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The validator without its text in --help.
CLI::Validator quiet(const CLI::Validator& validator);

// --model, --ctx, --threads, --isa, --precision, --memory-limit.
struct ModelFlags {
    std::string model;  // "": the built-in one
    int64_t context_length = 0;
    int threads = 0;
    std::string isa;
    std::string precision = "bf16";
    uint64_t memory_limit = 0;
};

void add_model_flags(CLI::App& app, ModelFlags& flags);
std::filesystem::path model_folder(const ModelFlags& flags);
EngineOptions engine_options(const ModelFlags& flags);
const char* to_string(Precision precision);

// The last part of a path that may end in a slash or be "."
std::string folder_name(const std::filesystem::path& path);

// How replies are made; what --temperature and its like, and /set, change.
struct GenerationSettings {
    SamplingParams sampling;
    int64_t max_tokens = 0;  // 0: until the context is full
    bool thinking = false;
};

struct Setting {
    const char* name;   // "top_k"; the flag is --top-k
    const char* value;  // "K"
    const char* help;
    // Throws UsageError for a value that is not allowed.
    void (*set)(GenerationSettings& settings, const std::string& value);
    std::string (*get)(const GenerationSettings& settings);
};

// temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, thinking.
const std::vector<Setting>& settings_table();
// Sets one by name; '-' and '_' are the same. Throws UsageError for an unknown name or a bad value.
void change_setting(GenerationSettings& settings, std::string name, const std::string& value);

// Flags for the settings; values are checked when they are parsed.
struct SettingFlags {
    std::vector<std::pair<std::string, std::string>> given;
};
void add_setting_flags(CLI::App& app, SettingFlags& flags);
// generation_config.json's defaults with a random seed, then the flags.
GenerationSettings make_settings(const ModelConfig& config, const SettingFlags& flags);

// What the streams are. Colour only where stdout is a terminal and NO_COLOR is not set.
struct Terminal {
    bool in = false, out = false, err = false, colour = false;
};
Terminal detect_terminal();
std::string dim(const Terminal& terminal, const std::string& text);

// A bar on stderr while a prompt of several chunks is taken in; erased when done.
class PromptProgress {
  public:
    PromptProgress(std::string label, bool shown);
    ~PromptProgress();
    PromptProgress(const PromptProgress&) = delete;
    PromptProgress& operator=(const PromptProgress&) = delete;

    void update(int64_t done, int64_t total);

  private:
    std::string label_;
    bool shown_;
    bool drawn_ = false;
    std::chrono::steady_clock::time_point start_;
};

// Writes a reply while it is generated. Reasoning is dim on a terminal and left out elsewhere.
class ReplyPrinter {
  public:
    ReplyPrinter(std::ostream& out, const Terminal& terminal, const Tokenizer& tokenizer,
                 bool thinking);
    void push(const GeneratedToken& token);
    // Ends the line.
    void finish();

  private:
    std::ostream& out_;
    Terminal terminal_;
    int32_t think_end_ = -1;
    bool reasoning_ = false;
    bool dimmed_ = false;
};

struct Turn {
    GenerateResult reply;
    int64_t prompt_tokens = 0;  // whole prompt
    int64_t taken_in = 0;       // of it, not in the cache before
    double prompt_seconds = 0;
    double reply_seconds = 0;
    bool stopped_in_prompt = false;  // interrupted before there was a reply

    double prompt_speed() const;  // tokens/s; 0 where nothing was measured
    double reply_speed() const;
};

struct TurnOptions {
    GenerationSettings settings;
    bool progress = false;                           // draw the bar
    const std::atomic<bool>* interrupted = nullptr;  // looked at after each chunk and token
    std::function<void(const GeneratedToken&)> on_token;
};

// Takes `ids` in (only what the session does not hold yet) without a reply. Throws kContextOverflow
// where no room is left for a reply.
Turn take_prompt(Session& session, const std::vector<int32_t>& ids, const TurnOptions& options);
// take_prompt, then the reply.
Turn run_turn(Session& session, const std::vector<int32_t>& ids, const TurnOptions& options);

// "prompt 410 tokens/s | reply 63.1 tokens/s | context 8985/16384 | DSA: 2048 of 8985 tokens read"
std::string turn_summary(const Turn& turn, const Session& session, const ModelConfig& config);
// Why a reply ended, where the user should know: "" or "the context is full (...)".
std::string stop_notice(StopReason reason, int64_t context_length);
const char* to_string(StopReason reason);

// Repeatable ids, for measurements.
std::vector<int32_t> random_tokens(int64_t count, int64_t vocab_size);

// Whole file. Throws kNotFound, or kInvalidArgument for a folder or an empty file.
std::string read_text_file(const std::string& path);

std::string format_number(double value, int digits);  // fixed
std::string format_count(int64_t count);              // 23.1M
std::string format_bytes(int64_t bytes);              // 1.50 GiB
std::string one_line(std::string text);               // line breaks to spaces

}  // namespace dsa::app
