// `dsa verify`: runs cases whose outputs are known and says how far the engine's are from them.

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "commands.h"
#include "common.h"
#include "verify_case.h"

namespace dsa::app {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kViolated = 3;

struct Bounds {
    std::optional<double> max_abs, max_rel, max_kl, max_hidden, max_nll, min_recall;
    std::optional<int64_t> max_topk_diff, min_argmax;
};

struct VerifyFlags {
    ModelFlags model;
    std::vector<std::string> cases;
    bool reference = false;
    std::string steps;
    int64_t chunk = 512;
    Bounds bounds;
    bool json = false;
};

struct StepName {
    const char* name;
    bool ReferenceSteps::*step;
};
constexpr StepName kSteps[] = {{"act", &ReferenceSteps::act},
                               {"kv", &ReferenceSteps::kv},
                               {"index", &ReferenceSteps::index},
                               {"hadamard", &ReferenceSteps::hadamard},
                               {"bf16", &ReferenceSteps::bf16}};

ReferenceSteps parse_steps(const std::string& list) {
    ReferenceSteps steps;
    std::istringstream parts(list);
    for (std::string part; std::getline(parts, part, ',');) {
        bool known = false;
        for (const auto& [name, step] : kSteps) {
            if (part != name && part != "all") continue;
            steps.*step = true;
            known = true;
        }
        if (!known) {
            throw UsageError("--steps: expected act, kv, index, hadamard, bf16 or all, found '" +
                             part + "'");
        }
    }
    return steps;
}

EngineOptions verify_options(const VerifyFlags& flags) {
    EngineOptions options = engine_options(flags.model);
    options.reference = flags.reference;
    options.reference_steps = parse_steps(flags.steps);
    options.prefill_chunk = flags.chunk;
    return options;
}

CaseFigures run_case(const Engine& engine, const VerifyCase& golden, bool show_progress) {
    const int64_t chunk = engine.options().prefill_chunk;
    CaseComparison comparison(golden, engine.info().config);
    Session session = engine.new_session();
    {
        PromptProgress bar(golden.name, show_progress);
        for (int64_t begin = 0; begin < golden.length(); begin += chunk) {
            const int64_t end = std::min(begin + chunk, golden.length());
            const TraceRequest request = comparison.prompt_request(begin, end);
            Trace trace;
            PrefillOptions options;
            options.trace_request = &request;
            options.trace = &trace;
            session.prefill(
                std::span(golden.input_ids)
                    .subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                options);
            comparison.add_prompt(begin, end, trace);
            bar.update(end, golden.length());
        }
    }
    comparison.add_step(0, session.logits());
    const auto steps = static_cast<int64_t>(golden.greedy_ids.size());
    const int64_t fed = std::max(steps - 1, golden.decode_steps);
    for (int64_t step = 0; step < fed; ++step) {
        const TraceRequest request = comparison.decode_request(step);
        Trace trace;
        PrefillOptions options;
        options.trace_request = &request;
        options.trace = &trace;
        const auto logits = session.decode(golden.greedy_ids[static_cast<size_t>(step)], options);
        comparison.add_decode(step, logits, trace);
        if (step + 1 < steps) comparison.add_step(step + 1, logits);
    }
    return comparison.figures();
}

std::string short_number(double value, bool sign = false) {
    if (std::isnan(value)) return "nan";
    std::ostringstream out;
    if (sign) out << std::showpos;
    out << std::setprecision(2) << value;
    return out.str();
}

std::string sets_text(const SetFigures& sets) {
    if (sets.compared == 0) return "-";
    return std::to_string(sets.differ) + "/" + std::to_string(sets.compared) + " (" +
           std::to_string(sets.near_ties) + " near ties)";
}

void print_figures(const CaseFigures& f, size_t name_width) {
    std::cout << std::left << std::setw(static_cast<int>(name_width)) << f.name;
    const auto field = [](const char* name, const std::string& text, int width) {
        std::cout << "  " << name << " " << std::left << std::setw(width) << text;
    };
    field("logits_max", short_number(f.logits_max), 7);
    field("logits_rel", short_number(f.logits_rel), 7);
    field("kl", short_number(f.kl), 7);
    field("hidden", short_number(f.hidden), 7);
    field("nll_diff", short_number(f.nll_diff, true), 8);
    field("argmax", std::to_string(f.argmax_right) + "/" + std::to_string(f.argmax_steps), 5);
    const auto recall = f.topk.recall();
    field("recall", recall ? format_number(*recall, 4) : "-", 6);
    field("topk_differ", sets_text(f.topk), 1);
    if (f.topk_decode.compared > 0) {
        field("decode: recall", format_number(*f.topk_decode.recall(), 4), 6);
        field("topk_differ", sets_text(f.topk_decode), 1);
    }
    if (f.experts_compared > 0) {
        field("experts_differ",
              std::to_string(f.experts_differ) + "/" + std::to_string(f.experts_compared), 1);
    }
    std::cout << std::endl;
}

Json sets_json(const SetFigures& sets) {
    Json out;
    out["compared"] = sets.compared;
    out["differ"] = sets.differ;
    out["near_ties"] = sets.near_ties;
    const auto recall = sets.recall();
    out["recall"] = recall ? Json(*recall) : Json();
    return out;
}

Json figures_json(const CaseFigures& f) {
    Json out;
    out["case"] = f.name;
    out["logits_max"] = f.logits_max;
    out["logits_rel"] = f.logits_rel;
    out["kl"] = f.kl;
    out["hidden"] = f.hidden;
    out["nll_diff"] = f.nll_diff;
    out["argmax_right"] = f.argmax_right;
    out["argmax_steps"] = f.argmax_steps;
    out["topk"] = sets_json(f.topk);
    out["topk_decode"] = sets_json(f.topk_decode);
    out["decode_logits_max"] = f.decode_logits_max ? Json(*f.decode_logits_max) : Json();
    out["experts_compared"] = f.experts_compared;
    out["experts_differ"] = f.experts_differ;
    return out;
}

// Looks at every figure that has a bound. A NaN violates any; a bound that met no figure in any
// case is violated too, since it has proved nothing.
class BoundCheck {
  public:
    explicit BoundCheck(const Bounds& bounds) : bounds_(bounds) {}

    void add(const CaseFigures& f) {
        at_most(f.name, "logits_max", "--max-abs", f.logits_max, bounds_.max_abs);
        at_most(f.name, "logits_rel", "--max-rel", f.logits_rel, bounds_.max_rel);
        at_most(f.name, "kl", "--max-kl", f.kl, bounds_.max_kl);
        at_most(f.name, "hidden", "--max-hidden", f.hidden, bounds_.max_hidden);
        at_most(f.name, "nll_diff", "--max-nll", std::abs(f.nll_diff), bounds_.max_nll);
        for (const SetFigures* sets : {&f.topk, &f.topk_decode}) {
            const char* name = sets == &f.topk ? "topk" : "topk_decode";
            add_sets(f.name, name, *sets);
        }
        right_ += f.argmax_right;
        steps_ += f.argmax_steps;
    }

    std::vector<std::string> finish() {
        if (bounds_.min_argmax && right_ < *bounds_.min_argmax) {
            std::ostringstream line;
            line << "all cases: argmax right in " << right_ << " of " << steps_
                 << " steps, below --min-argmax " << *bounds_.min_argmax;
            violations_.push_back(line.str());
        }
        if ((bounds_.min_recall || bounds_.max_topk_diff) && !sets_seen_) {
            violations_.push_back(
                "all cases: no top-k set to compare for --min-recall or --max-topk-diff");
        }
        return violations_;
    }

    int64_t right() const { return right_; }
    int64_t steps() const { return steps_; }

  private:
    void at_most(const std::string& name, const std::string& figure, const char* flag, double value,
                 std::optional<double> bound) {
        if (!bound || value <= *bound) return;
        violate(name, figure, value, std::string(" above ") + flag, *bound);
    }
    void add_sets(const std::string& name, const std::string& figure, const SetFigures& sets) {
        if (sets.compared == 0) return;
        sets_seen_ = true;
        if (bounds_.max_topk_diff) {
            at_most(name, figure + ".differ", "--max-topk-diff", static_cast<double>(sets.differ),
                    static_cast<double>(*bounds_.max_topk_diff));
        }
        if (bounds_.min_recall && !(*sets.recall() >= *bounds_.min_recall)) {
            violate(name, figure + ".recall", *sets.recall(), " below --min-recall",
                    *bounds_.min_recall);
        }
    }
    void violate(const std::string& name, const std::string& figure, double value,
                 const std::string& relation, double bound) {
        std::ostringstream line;
        line << name << ": " << figure << " " << std::abs(value) << relation << " " << bound;
        violations_.push_back(line.str());
    }

    Bounds bounds_;
    std::vector<std::string> violations_;
    int64_t right_ = 0, steps_ = 0;
    bool sets_seen_ = false;
};

std::string path_text(const EngineOptions& options) {
    std::string text;
    if (!options.reference) return options.isa + ", " + to_string(options.precision);
    for (const auto& [name, step] : kSteps) {
        if (options.reference_steps.*step) text += (text.empty() ? "" : ",") + std::string(name);
    }
    return "reference, steps " + (text.empty() ? "none" : text);
}

std::vector<VerifyCase> load_cases(const VerifyFlags& flags, const ModelConfig& config) {
    std::vector<VerifyCase> cases;
    for (const std::string& folder : flags.cases) cases.push_back(load_case(folder, config));
    return cases;
}

Engine open_for(const std::vector<VerifyCase>& cases, const std::filesystem::path& model,
                EngineOptions options) {
    if (options.context_length == 0) {
        for (const VerifyCase& c : cases) {
            options.context_length = std::max(options.context_length, c.context_length());
        }
    }
    return Engine(model, options);
}

int verify(const VerifyFlags& flags) {
    if (flags.cases.empty()) throw UsageError("--case is required");
    if (!flags.steps.empty() && !flags.reference) {
        throw UsageError("--steps switches steps of the reference path: it needs --reference");
    }
    const EngineOptions options = verify_options(flags);
    const auto folder = model_folder(flags.model);
    const auto cases = load_cases(flags, inspect_model(folder).config);
    const Engine engine = open_for(cases, folder, options);

    size_t name_width = 0;
    for (const VerifyCase& c : cases) name_width = std::max(name_width, c.name.size());
    BoundCheck check(flags.bounds);
    Json results = Json::array();
    for (const VerifyCase& c : cases) {
        const CaseFigures figures = run_case(engine, c, detect_terminal().err);
        check.add(figures);
        results.push_back(figures_json(figures));
        if (!flags.json) print_figures(figures, name_width);
    }
    const std::vector<std::string> violations = check.finish();
    if (flags.json) {
        Json out = {{"model", folder_name(folder)},
                    {"path", path_text(engine.options())},
                    {"cases", results},
                    {"argmax_right", check.right()},
                    {"argmax_steps", check.steps()},
                    {"violations", violations}};
        std::cout << out.dump(1) << std::endl;
    } else {
        std::cout << folder_name(folder) << " (" << path_text(engine.options()) << "): argmax "
                  << check.right() << "/" << check.steps() << " in " << cases.size() << " cases"
                  << std::endl;
    }
    for (const std::string& violation : violations) {
        std::cerr << "dsa: verify: " << violation << "\n";
    }
    return violations.empty() ? 0 : kViolated;
}

void add_bounds(CLI::App& command, Bounds& bounds) {
    const auto bound = [&](const char* flag, auto& value, const char* help) {
        command.add_option(flag, value, help)
            ->check(quiet(CLI::NonNegativeNumber))
            ->type_name("X")
            ->group("Bounds");
    };
    bound("--max-abs", bounds.max_abs, "Largest difference of a logit");
    bound("--max-rel", bounds.max_rel, "Relative L2 error of the logits");
    bound("--max-kl", bounds.max_kl, "Mean KL divergence from the oracle");
    bound("--max-hidden", bounds.max_hidden, "Relative L2 error of the worst layer");
    bound("--max-nll", bounds.max_nll, "Difference of the mean NLL, either way");
    bound("--max-topk-diff", bounds.max_topk_diff, "Top-k sets that differ, near ties apart");
    bound("--min-recall", bounds.min_recall, "Mean share of the oracle's top-k positions");
    bound("--min-argmax", bounds.min_argmax, "Greedy steps right, all cases together");
}

}  // namespace

Command add_verify(CLI::App& app) {
    CLI::App* command =
        app.add_subcommand("verify", "Compare the engine with known outputs of a model");
    const auto flags = std::make_shared<VerifyFlags>();
    add_model_flags(*command, flags->model);
    command->add_option("--case", flags->cases, "Case folders, one or more (required)")
        ->type_name("DIR");
    command->add_flag("--reference", flags->reference, "Run the plain reference path");
    command
        ->add_option("--steps", flags->steps,
                     "Reference: low-precision steps to switch on (act, kv, index, hadamard, "
                     "bf16, or all)")
        ->type_name("LIST");
    command->add_option("--chunk", flags->chunk, "Tokens of the prompt taken in at once")
        ->check(quiet(CLI::PositiveNumber))
        ->type_name("N");
    add_bounds(*command, flags->bounds);
    command->add_flag("--json", flags->json, "Print one JSON object");
    command->footer(
        "Exit code 3: a bound is violated; each is named on stderr.\n\n"
        "Example:\n  dsa verify --case tests/golden/dsa-mini/recall-3000 --max-kl 0.002 "
        "--min-recall 0.98");
    return {command, [flags] { return verify(*flags); }};
}

}  // namespace dsa::app
