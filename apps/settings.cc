// Sampling settings: one table for the flags, /set and the JSON output.

#include <algorithm>
#include <charconv>
#include <random>
#include <sstream>

#include "common.h"

namespace dsa::app {
namespace {

template <typename T>
T parse_number(const std::string& name, const std::string& text, const char* expected) {
    T value{};
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end || text.empty()) {
        throw UsageError(name + ": expected " + expected + ", found '" + text + "'");
    }
    return value;
}

double parse_real(const std::string& name, const std::string& text, const char* expected,
                  bool (*allowed)(double)) {
    const auto value = parse_number<double>(name, text, expected);
    if (!allowed(value)) {
        throw UsageError(name + ": expected " + expected + ", found '" + text + "'");
    }
    return value;
}

int64_t parse_count(const std::string& name, const std::string& text) {
    const char* expected = "a whole number, 0 or more";
    const auto value = parse_number<int64_t>(name, text, expected);
    if (value < 0) throw UsageError(name + ": expected " + expected + ", found '" + text + "'");
    return value;
}

std::string show(double value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

void set_temperature(GenerationSettings& s, const std::string& text) {
    s.sampling.temperature = parse_real("temperature", text, "a number from 0 to 100",
                                        [](double v) { return v >= 0.0 && v <= 100.0; });
}

void set_top_p(GenerationSettings& s, const std::string& text) {
    s.sampling.top_p = parse_real("top_p", text, "a number above 0 and up to 1",
                                  [](double v) { return v > 0.0 && v <= 1.0; });
}

void set_min_p(GenerationSettings& s, const std::string& text) {
    s.sampling.min_p = parse_real("min_p", text, "a number from 0 to 1",
                                  [](double v) { return v >= 0.0 && v <= 1.0; });
}

void set_repetition_penalty(GenerationSettings& s, const std::string& text) {
    s.sampling.repetition_penalty =
        parse_real("repetition_penalty", text, "a number above 0 and up to 100",
                   [](double v) { return v > 0.0 && v <= 100.0; });
}

void set_thinking(GenerationSettings& s, const std::string& text) {
    if (text != "on" && text != "off") {
        throw UsageError("thinking: expected on or off, found '" + text + "'");
    }
    s.thinking = text == "on";
}

}  // namespace

const std::vector<Setting>& settings_table() {
    using S = GenerationSettings;
    using Text = const std::string&;
    static const std::vector<Setting> table = {
        {"temperature", "T", "Spread of the choice; 0: always the likeliest token", set_temperature,
         [](const S& s) { return show(s.sampling.temperature); }},
        {"top_k", "K", "Choose among the K likeliest tokens; 0: all",
         [](S& s, Text text) { s.sampling.top_k = parse_count("top_k", text); },
         [](const S& s) { return std::to_string(s.sampling.top_k); }},
        {"top_p", "P", "Choose among the likeliest tokens that make up P; 1: all", set_top_p,
         [](const S& s) { return show(s.sampling.top_p); }},
        {"min_p", "P", "Leave out tokens below P times the likeliest; 0: none", set_min_p,
         [](const S& s) { return show(s.sampling.min_p); }},
        {"repetition_penalty", "R", "Make tokens that occurred less likely; 1: off",
         set_repetition_penalty, [](const S& s) { return show(s.sampling.repetition_penalty); }},
        {"seed", "N", "Seed of the choice (default: a random one)",
         [](S& s, Text text) {
             s.sampling.seed = parse_number<uint64_t>("seed", text, "a whole number, 0 or more");
         },
         [](const S& s) { return std::to_string(s.sampling.seed); }},
        {"max_tokens", "N", "Tokens of a reply at most; 0: until the context is full",
         [](S& s, Text text) { s.max_tokens = parse_count("max_tokens", text); },
         [](const S& s) { return std::to_string(s.max_tokens); }},
        {"thinking", "on|off", "Let the model reason before it replies", set_thinking,
         [](const S& s) { return std::string(s.thinking ? "on" : "off"); }},
    };
    return table;
}

void change_setting(GenerationSettings& settings, std::string name, const std::string& value) {
    std::replace(name.begin(), name.end(), '-', '_');
    std::string names;
    for (const Setting& setting : settings_table()) {
        if (name == setting.name) return setting.set(settings, value);
        names += (names.empty() ? "" : ", ") + std::string(setting.name);
    }
    throw UsageError("no setting '" + name + "'; there are " + names);
}

void add_setting_flags(CLI::App& app, SettingFlags& flags) {
    for (const Setting& setting : settings_table()) {
        const std::string name = setting.name;
        if (name == "thinking") {
            app.add_flag_callback(
                "--thinking", [&flags] { flags.given.emplace_back("thinking", "on"); },
                setting.help);
            continue;
        }
        std::string flag = "--" + name;
        std::replace(flag.begin(), flag.end(), '_', '-');
        if (name == "max_tokens") flag = "-n," + flag;
        const auto check = [&setting](const std::string& value) {
            try {
                GenerationSettings scratch;
                setting.set(scratch, value);
                return std::string();
            } catch (const UsageError& error) {
                return std::string(error.what());
            }
        };
        app.add_option_function<std::string>(
               flag,
               [&flags, name](const std::string& value) { flags.given.emplace_back(name, value); },
               setting.help)
            ->check(CLI::Validator(check, ""))
            ->type_name(setting.value);
    }
}

GenerationSettings make_settings(const ModelConfig& config, const SettingFlags& flags) {
    GenerationSettings settings;
    SamplingParams& sampling = settings.sampling;
    sampling.repetition_penalty = config.repetition_penalty;
    if (config.do_sample) {
        sampling.temperature = config.temperature;
        sampling.top_k = config.top_k;
        sampling.top_p = config.top_p;
    }
    sampling.seed = std::random_device{}();  // 32 bits: short enough to be typed again
    for (const auto& [name, value] : flags.given) change_setting(settings, name, value);
    return settings;
}

}  // namespace dsa::app
