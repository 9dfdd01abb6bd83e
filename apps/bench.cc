// `dsa bench`: prefill and decode speed behind contexts of some depths, beside the machine's
// limits.

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "common.h"
#include "dsa/limits.h"
#include "model_preset.h"

namespace dsa::app {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct BenchFlags {
    ModelFlags model;
    std::vector<int64_t> depths{0, 4096};
    int64_t prefill = 512;
    int64_t decode = 32;
    int repeats = 3;
    std::string json;
};

struct Point {
    int64_t depth;
    double prefill = 0, prefill_limit = 0;  // tokens/s
    double decode = 0, decode_limit = 0;
};

std::string cpu_name() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        const size_t colon = line.find(": ");
        if (line.rfind("model name", 0) == 0 && colon != std::string::npos)
            return line.substr(colon + 2);
    }
    return "?";
}

double seconds_of(const std::function<void()>& work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Least seconds for `tokens` of one forward pass behind `depth`, with logits of the last.
double least_seconds(const ModelInfo& info, const MachineLimits& limits, Precision precision,
                     int64_t depth, int64_t tokens) {
    const TokenCost first = token_cost(info, depth);
    double bytes = first.weight_bytes;
    double linear_ops = first.head_ops;
    double context_ops = 0;
    for (int64_t i = 0; i < tokens; ++i) {
        const TokenCost cost = token_cost(info, depth + i);
        linear_ops += cost.linear_ops;
        context_ops += cost.context_ops;
        bytes = std::max(bytes, cost.weight_bytes + cost.cache_bytes);  // read once a pass
    }
    const double linear_rate = precision == Precision::kInt8 ? limits.int8_ops : limits.mul_ops;
    double compute = 0;
    if (linear_rate > 0) compute += linear_ops / linear_rate;
    if (limits.mul_ops > 0) compute += context_ops / limits.mul_ops;
    return std::max(compute, bytes / limits.read_bytes);
}

// Best of some repeats; the limits are measured in between.
Point measure_point(const Engine& engine, LimitMeter& meter, const BenchFlags& flags,
                    int64_t depth) {
    const ModelConfig& config = engine.info().config;
    const std::vector<int32_t> ids =
        random_tokens(depth + flags.prefill + flags.decode, config.vocab_size);
    const auto piece = [&](int64_t first, int64_t count) {
        return std::span(ids).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    };
    Session session = engine.new_session();
    if (depth > 0) session.prefill(piece(0, depth));
    Point point{depth};
    for (int i = 0; i < flags.repeats; ++i) {
        meter.measure();
        session.rewind(depth);
        const double prefill = seconds_of([&] { session.prefill(piece(depth, flags.prefill)); });
        session.rewind(depth);
        if (depth == 0) session.prefill(piece(0, 1));  // decode needs something to follow
        const double decode = seconds_of([&] {
            for (const int32_t id : piece(depth + flags.prefill, flags.decode)) session.decode(id);
        });
        point.prefill = std::max(point.prefill, static_cast<double>(flags.prefill) / prefill);
        point.decode = std::max(point.decode, static_cast<double>(flags.decode) / decode);
    }
    return point;
}

void set_limits(Point& point, const Engine& engine, const MachineLimits& limits,
                const BenchFlags& flags) {
    const Precision precision = engine.options().precision;
    const auto rate = [&](int64_t depth, int64_t tokens) {
        return static_cast<double>(tokens) /
               least_seconds(engine.info(), limits, precision, depth, tokens);
    };
    point.prefill_limit = rate(point.depth, flags.prefill);
    point.decode_limit = rate(point.depth + flags.decode / 2, 1);
}

void print(const Engine& engine, const MachineLimits& limits, const std::vector<Point>& points,
           const BenchFlags& flags) {
    const EngineOptions& o = engine.options();
    std::cout << cpu_name() << ", " << o.isa << ", " << to_string(o.precision) << ", " << o.threads
              << " threads; reads " << format_number(limits.read_bytes * 1e-9, 1)
              << " GB/s, multiplies " << format_number(limits.mul_ops * 1e-9, 0)
              << " GFLOP/s, int8 " << format_number(limits.int8_ops * 1e-9, 0) << " GOP/s\n"
              << "a decode step reads " << format_bytes(engine.info().active_bytes)
              << " of weights\n\n"
              << "   depth   prefill tok/s   of limit   decode tok/s   of limit\n";
    for (const Point& p : points)
        std::cout << std::setw(8) << p.depth << std::setw(16) << format_number(p.prefill, 0)
                  << std::setw(9) << format_number(100 * p.prefill / p.prefill_limit, 0) << " %"
                  << std::setw(15) << format_number(p.decode, 1) << std::setw(9)
                  << format_number(100 * p.decode / p.decode_limit, 0) << " %\n";
    std::cout << "\nprefill of " << flags.prefill << " tokens, decode of " << flags.decode
              << ", best of " << flags.repeats << "\n";
}

Json to_json(const Engine& engine, const MachineLimits& limits, const std::vector<Point>& points,
             const BenchFlags& flags) {
    const EngineOptions& o = engine.options();
    Json out;
    out["model"] = flags.model.model.empty() ? folder_name(engine.info().path) : flags.model.model;
    out["precision"] = to_string(o.precision);
    out["cpu"] = cpu_name();
    out["isa"] = o.isa;
    out["threads"] = o.threads;
    const double ops = o.precision == Precision::kInt8 ? limits.int8_ops : limits.mul_ops;
    out["limits"] = {{"read_gbs", limits.read_bytes * 1e-9}, {"mul_gops", ops * 1e-9}};
    out["points"] = Json::array();
    for (const Point& p : points)
        out["points"].push_back({{"depth", p.depth},
                                 {"prefill_tokens", flags.prefill},
                                 {"prefill_tps", p.prefill},
                                 {"prefill_limit_tps", p.prefill_limit},
                                 {"decode_tps", p.decode},
                                 {"decode_limit_tps", p.decode_limit}});
    return out;
}

int bench(BenchFlags flags) {
    const bool is_folder =
        flags.model.model.empty() || std::filesystem::is_directory(flags.model.model);
    std::optional<SyntheticCheckpoint> synthetic;
    if (!is_folder) synthetic.emplace(flags.model.model);
    const int64_t deepest = *std::max_element(flags.depths.begin(), flags.depths.end());
    EngineOptions options = engine_options(flags.model);
    if (options.context_length == 0)
        options.context_length = deepest + flags.prefill + flags.decode;
    const Engine engine(synthetic ? synthetic->path() : model_folder(flags.model), options);
    engine.load_weights();
    LimitMeter meter(engine);
    std::vector<Point> points;
    points.reserve(flags.depths.size());
    for (const int64_t depth : flags.depths)
        points.push_back(measure_point(engine, meter, flags, depth));
    meter.measure();
    for (Point& point : points) set_limits(point, engine, meter.best(), flags);
    if (flags.json.empty()) {
        print(engine, meter.best(), points, flags);
        return 0;
    }
    const std::string text = to_json(engine, meter.best(), points, flags).dump(1);
    if (flags.json == "-") {
        std::cout << text << "\n";
        return 0;
    }
    std::ofstream file(flags.json);
    file << text << "\n";
    file.close();
    if (!file) throw_error(ErrorCode::kNotFound, flags.json, ": can't be written");
    return 0;
}

}  // namespace

Command add_bench(CLI::App& app) {
    auto flags = std::make_shared<BenchFlags>();
    CLI::App* command =
        app.add_subcommand("bench", "Prefill and decode speed beside the limits of the machine");
    add_model_flags(*command, flags->model);
    const auto positive = quiet(CLI::Range(int64_t{1}, int64_t{1} << 20));
    command->add_option("--depths", flags->depths, "Contexts to measure behind (default 0,4096)")
        ->delimiter(',')
        ->check(quiet(CLI::Range(int64_t{0}, int64_t{1} << 30)))
        ->type_name("N,N,...");
    command->add_option("--prefill", flags->prefill, "Tokens of a prefill (default 512)")
        ->check(positive)
        ->type_name("N");
    command->add_option("--decode", flags->decode, "Tokens of a decode (default 32)")
        ->check(positive)
        ->type_name("N");
    command->add_option("--repeats", flags->repeats, "The best of them counts (default 3)")
        ->check(quiet(CLI::Range(1, 1000)))
        ->type_name("N");
    command->add_option("--json", flags->json, "Write the result to a file (- for stdout)")
        ->type_name("FILE");
    command->footer(
        "--model may be a preset too (b1): random weights in a temporary folder.\n"
        "Example:\n  dsa bench --model b1 --depths 0,8192 --precision int8");
    return {command, [flags] { return bench(*flags); }};
}

}  // namespace dsa::app
