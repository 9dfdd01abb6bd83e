#include "common.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>
#include <sstream>
#include <utility>

namespace dsa::app {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int64_t kLongPrompt = 512;  // tokens; the bar shows before the first chunk is done

int64_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
    return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

constexpr std::pair<const char*, Precision> kPrecisions[] = {
    {"bf16", Precision::kBf16}, {"fp8", Precision::kFp8}, {"int8", Precision::kInt8}};

std::optional<Precision> find_precision(std::string_view name) {
    for (const auto& [known, value] : kPrecisions)
        if (name == known) return value;
    return std::nullopt;
}

std::string check_precision(const std::string& name) {
    if (find_precision(name)) return "";
    return "expected bf16, fp8 or int8, found '" + name + "'";
}

// Beside an installed program, else where this one was built.
std::filesystem::path builtin_model() {
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    auto installed = (program.parent_path() / "../share/dsa/models/dsa-mini").lexically_normal();
    if (std::filesystem::exists(installed, error)) return installed;
    return DSA_SOURCE_DIR "/models/dsa-mini";
}

}  // namespace

CLI::Validator quiet(const CLI::Validator& validator) {
    return validator.description("");
}

void add_model_flags(CLI::App& app, ModelFlags& flags) {
    app.add_option("--model", flags.model, "Model folder (default: the built-in dsa-mini)")
        ->type_name("DIR");
    app.add_option("--ctx", flags.context_length, "Tokens that a conversation may hold")
        ->check(quiet(CLI::PositiveNumber))
        ->type_name("N");
    app.add_option("--threads", flags.threads, "Threads (default: one a core)")
        ->check(quiet(CLI::Range(1, 1024)))
        ->type_name("N");
    app.add_option("--isa", flags.isa,
                   "portable, avx2, avx512, avx512_bf16 or amx (default: the best here)")
        ->check(quiet(CLI::IsMember({"portable", "avx2", "avx512", "avx512_bf16", "amx"})))
        ->type_name("NAME");
    app.add_option("--precision", flags.precision, "Activations: bf16 (default), fp8 or int8")
        ->check(CLI::Validator(check_precision, ""))
        ->type_name("NAME");
    app.add_option("--memory-limit", flags.memory_limit, "Refuse to use more memory (K, M, G)")
        ->transform(quiet(CLI::AsSizeValue(false)))
        ->type_name("BYTES");
}

std::filesystem::path model_folder(const ModelFlags& flags) {
    return flags.model.empty() ? builtin_model() : std::filesystem::path(flags.model);
}

EngineOptions engine_options(const ModelFlags& flags) {
    EngineOptions options;
    options.threads = flags.threads;
    options.context_length = flags.context_length;
    options.isa = flags.isa;
    options.precision = find_precision(flags.precision).value_or(Precision::kBf16);
    options.memory_limit = static_cast<int64_t>(flags.memory_limit);
    return options;
}

const char* to_string(Precision precision) {
    for (const auto& [name, value] : kPrecisions)
        if (value == precision) return name;
    return "?";
}

std::string folder_name(const std::filesystem::path& path) {
    auto whole = std::filesystem::absolute(path).lexically_normal();
    if (!whole.has_filename()) whole = whole.parent_path();
    return whole.filename().string();
}

Terminal detect_terminal() {
    Terminal terminal;
    terminal.in = isatty(STDIN_FILENO) == 1;
    terminal.out = isatty(STDOUT_FILENO) == 1;
    terminal.err = isatty(STDERR_FILENO) == 1;
    terminal.colour = terminal.out && std::getenv("NO_COLOR") == nullptr;
    return terminal;
}

std::string dim(const Terminal& terminal, const std::string& text) {
    return terminal.colour ? "\033[2m" + text + "\033[0m" : text;
}

PromptProgress::PromptProgress(std::string label, bool shown)
    : label_(std::move(label)), shown_(shown), start_(Clock::now()) {}

PromptProgress::~PromptProgress() {
    if (drawn_) std::cerr << "\r\033[K" << std::flush;
}

void PromptProgress::update(int64_t done, int64_t total) {
    if (!shown_ || done >= total) return;
    constexpr int64_t kWidth = 30;
    const auto filled = static_cast<size_t>(done * kWidth / total);
    const double speed = static_cast<double>(done) / std::max(seconds_since(start_), 1e-9);
    std::cerr << "\r\033[K" << label_ << " [" << std::string(filled, '#')
              << std::string(static_cast<size_t>(kWidth) - filled, '.') << "] " << done << "/"
              << total << " tokens";
    if (done > 0) std::cerr << ", " << format_number(speed, 0) << " tokens/s";
    std::cerr << std::flush;
    drawn_ = true;
}

ReplyPrinter::ReplyPrinter(std::ostream& out, const Terminal& terminal, const Tokenizer& tokenizer,
                           bool thinking)
    : out_(out), terminal_(terminal), reasoning_(thinking) {
    if (thinking) think_end_ = tokenizer.special_id("</think>");
}

void ReplyPrinter::push(const GeneratedToken& token) {
    if (!reasoning_) {
        out_ << token.text << std::flush;
        return;
    }
    if (token.id == think_end_) {
        reasoning_ = false;
        if (dimmed_) out_ << "\033[0m";
        if (terminal_.out) out_ << "\n\n" << std::flush;
        dimmed_ = false;
        return;
    }
    if (!terminal_.out) return;
    if (terminal_.colour && !dimmed_) {
        out_ << "\033[2m";
        dimmed_ = true;
    }
    out_ << token.text << std::flush;
}

void ReplyPrinter::finish() {
    if (dimmed_) out_ << "\033[0m";
    dimmed_ = false;
    out_ << "\n" << std::flush;
}

double Turn::prompt_speed() const {
    return prompt_seconds > 0 ? static_cast<double>(taken_in) / prompt_seconds : 0.0;
}

double Turn::reply_speed() const {
    return reply_seconds > 0 ? static_cast<double>(reply.ids.size()) / reply_seconds : 0.0;
}

Turn take_prompt(Session& session, const std::vector<int32_t>& ids, const TurnOptions& options) {
    Turn turn;
    turn.prompt_tokens = static_cast<int64_t>(ids.size());
    if (turn.prompt_tokens >= session.context_length()) {
        throw_error(ErrorCode::kContextOverflow, "the prompt has ", turn.prompt_tokens,
                    " tokens; the context holds ", session.context_length(),
                    " and a reply needs at least one of them (--ctx)");
    }
    const auto stop = [&] { return options.interrupted != nullptr && *options.interrupted; };
    PromptProgress bar("reading", options.progress);
    const int64_t new_tokens = turn.prompt_tokens - common_prefix(session.tokens(), ids);
    if (new_tokens > kLongPrompt) bar.update(0, new_tokens);
    PrefillOptions prefill;
    prefill.on_progress = [&](int64_t done, int64_t total) {
        bar.update(done, total);
        return !stop();
    };
    const auto start = Clock::now();
    const int64_t kept = session.take_turn(ids, prefill);
    turn.prompt_seconds = seconds_since(start);
    turn.taken_in = session.length() - kept;
    turn.stopped_in_prompt = stop() || session.length() < turn.prompt_tokens;
    return turn;
}

Turn run_turn(Session& session, const std::vector<int32_t>& ids, const TurnOptions& options) {
    Turn turn = take_prompt(session, ids, options);
    if (turn.stopped_in_prompt) return turn;
    GenerateOptions generate;
    generate.sampling = options.settings.sampling;
    generate.max_tokens = options.settings.max_tokens;
    const auto start = Clock::now();
    turn.reply = session.generate(generate, [&](const GeneratedToken& token) {
        if (options.on_token) options.on_token(token);
        return options.interrupted == nullptr || !*options.interrupted;
    });
    turn.reply_seconds = seconds_since(start);
    return turn;
}

std::string turn_summary(const Turn& turn, const Session& session, const ModelConfig& config) {
    const auto speed = [](double value) {
        return format_number(value, value < 99.95 ? 1 : 0) + " tokens/s";
    };
    std::ostringstream line;
    line << "prompt " << speed(turn.prompt_speed()) << " | reply " << speed(turn.reply_speed())
         << " | context " << session.length() << "/" << session.context_length() << " | ";
    if (session.length() > config.index_topk) {
        line << "DSA: " << config.index_topk << " of " << session.length() << " tokens read";
    } else {
        line << "dense: context below " << config.index_topk;
    }
    return line.str();
}

std::string stop_notice(StopReason reason, int64_t context_length) {
    if (reason == StopReason::kContextFull) {
        return "the context is full (" + std::to_string(context_length) + " tokens)";
    }
    return reason == StopReason::kMaxTokens ? "stopped at max_tokens" : "";
}

const char* to_string(StopReason reason) {
    switch (reason) {
        case StopReason::kEndToken:
            return "end_token";
        case StopReason::kMaxTokens:
            return "max_tokens";
        case StopReason::kContextFull:
            return "context_full";
        case StopReason::kCancelled:
        case StopReason::kCallback:
            return "interrupted";
    }
    return "unknown";
}

std::vector<int32_t> random_tokens(int64_t count, int64_t vocab_size) {
    std::mt19937 random(1);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size));
    return ids;
}

std::string read_text_file(const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
        throw_error(ErrorCode::kInvalidArgument, path, ": expected a text file, found a folder");
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) throw_error(ErrorCode::kNotFound, path, ": cannot open the file");
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (file.bad()) throw_error(ErrorCode::kInvalidArgument, path, ": cannot read the file");
    if (text.empty()) throw_error(ErrorCode::kInvalidArgument, path, ": the file is empty");
    return text;
}

std::string format_number(double value, int digits) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(digits) << value;
    return out.str();
}

std::string format_count(int64_t count) {
    constexpr std::array<const char*, 5> kUnits = {"", "K", "M", "B", "T"};
    auto value = static_cast<double>(count);
    size_t unit = 0;
    for (; value >= 999.95 && unit + 1 < kUnits.size(); ++unit) value /= 1000.0;
    return unit == 0 ? std::to_string(count) : format_number(value, 1) + kUnits[unit];
}

std::string format_bytes(int64_t bytes) {
    constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
    auto value = static_cast<double>(bytes);
    size_t unit = 0;
    for (; value >= 1000.0 && unit + 1 < kUnits.size(); ++unit) value /= 1024.0;
    const int digits = unit == 0 || value >= 100.0 ? 0 : value >= 10.0 ? 1 : 2;
    return format_number(value, digits) + " " + kUnits[unit];
}

std::string one_line(std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

}  // namespace dsa::app
