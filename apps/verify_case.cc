#include "verify_case.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <sstream>

#include "common.h"
#include "dsa/safetensors.h"

namespace dsa::app {
namespace {

// A position is a near tie if its score is this close to the k-th, relative to it.
constexpr double kNearTie = 1e-5;

int64_t moe_layers(const ModelConfig& config) {
    int64_t count = 0;
    for (int64_t l = config.first_k_dense_replace; l < config.num_hidden_layers; ++l) {
        count += l % config.moe_layer_freq == 0 ? 1 : 0;
    }
    return count;
}

std::string shape_text(const std::vector<int64_t>& shape) {
    std::ostringstream out;
    out << "[";
    for (size_t i = 0; i < shape.size(); ++i) out << (i == 0 ? "" : ", ") << shape[i];
    out << "]";
    return out.str();
}

// Reads the tensors of one case; shapes are checked against the case's own sizes and the model's.
class CaseReader {
  public:
    explicit CaseReader(const std::filesystem::path& path) : file_(path) {}

    bool contains(const char* name) const { return file_.contains(name); }

    // -1 stands for any size.
    std::vector<int64_t> shape(const char* name, const std::vector<int64_t>& expected) const {
        const std::vector<int64_t>& found = file_.at(name).shape;
        const auto fits = [](int64_t f, int64_t e) { return e < 0 || f == e; };
        if (!std::equal(found.begin(), found.end(), expected.begin(), expected.end(), fits)) {
            fail(name, "shape " + shape_text(expected) + " (-1: any)", shape_text(found));
        }
        return found;
    }
    std::vector<float> floats(const char* name, const std::vector<int64_t>& expected) const {
        shape(name, expected);
        return file_.floats(name);
    }
    std::vector<int64_t> integers(const char* name, const std::vector<int64_t>& expected,
                                  int64_t begin, int64_t end) const {
        shape(name, expected);
        std::vector<int64_t> values = file_.integers(name);
        for (const int64_t value : values) {
            if (value >= begin && value < end) continue;
            std::ostringstream range;
            range << "values from " << begin << " to " << end - 1;
            fail(name, range.str(), std::to_string(value));
        }
        return values;
    }
    std::vector<int32_t> token_ids(const char* name, int64_t vocab_size) const {
        const std::vector<int64_t> values = integers(name, {-1}, 0, vocab_size);
        if (values.empty()) fail(name, "at least one token", "none");
        return {values.begin(), values.end()};
    }
    [[noreturn]] void fail(const char* name, const std::string& expected,
                           const std::string& found) const {
        throw_error(ErrorCode::kInvalidModel, file_.path().string(), ": ", name, ": expected ",
                    expected, ", found ", found);
    }

  private:
    SafetensorsFile file_;
};

void load_optional(const CaseReader& reader, const ModelConfig& config, VerifyCase& c) {
    const auto n = static_cast<int64_t>(c.greedy_ids.size());
    const auto num_rows = static_cast<int64_t>(c.rows.size());
    const int64_t layers = config.num_hidden_layers;
    const int64_t topk = config.index_topk;
    if (reader.contains("topk")) {
        c.topk = reader.integers("topk", {layers, num_rows, topk}, -1, c.length());
    }
    if (reader.contains("topk_decode")) {
        c.decode_steps = reader.shape("topk_decode", {layers, -1, topk})[1];
        if (c.decode_steps != n && c.decode_steps != n - 1) {
            reader.fail("topk_decode",
                        std::to_string(n - 1) + " or " + std::to_string(n) + " steps",
                        std::to_string(c.decode_steps));
        }
        c.topk_decode =
            reader.integers("topk_decode", {layers, c.decode_steps, topk}, -1, c.context_length());
    }
    if (reader.contains("logits_decode")) {
        c.logits_decode = reader.floats("logits_decode", {n, config.vocab_size});
        c.decode_steps = n;
    }
    if (reader.contains("experts")) {
        c.experts =
            reader.integers("experts", {moe_layers(config), c.length(), config.num_experts_per_tok},
                            0, config.n_routed_experts);
    }
}

double log_sum_exp(std::span<const float> logits) {
    const double peak = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(logit - peak);
    return peak + std::log(sum);
}

double kl_divergence(std::span<const float> oracle, std::span<const float> engine) {
    const double oracle_log_sum = log_sum_exp(oracle);
    const double engine_log_sum = log_sum_exp(engine);
    double sum = 0;
    for (size_t i = 0; i < oracle.size(); ++i) {
        const double log_p = oracle[i] - oracle_log_sum;
        sum += std::exp(log_p) * (log_p - (engine[i] - engine_log_sum));
    }
    return sum;
}

// The larger one; a NaN stays.
double worse(double a, double b) {
    return std::isnan(a) || a > b ? a : b;
}

double relative(double difference_squared, double oracle_squared) {
    if (oracle_squared > 0) return std::sqrt(difference_squared / oracle_squared);
    return difference_squared == 0 ? 0.0 : std::numeric_limits<double>::infinity();
}

double max_difference(std::span<const float> a, std::span<const float> b) {
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) worst = worse(worst, std::abs(double{a[i]} - b[i]));
    return worst;
}

// Whether two selections differ in nothing but positions whose score is close to the k-th.
bool near_tie(const std::vector<int32_t>& engine, const std::vector<int32_t>& oracle,
              const std::vector<float>& scores) {
    const auto visible = [&](int32_t p) { return p >= 0 && p < std::ssize(scores); };
    if (!std::all_of(engine.begin(), engine.end(), visible)) return false;
    double kth = std::numeric_limits<double>::infinity();
    for (const int32_t p : engine) kth = std::min(kth, double{scores[static_cast<size_t>(p)]});
    std::vector<int32_t> odd;
    std::set_symmetric_difference(engine.begin(), engine.end(), oracle.begin(), oracle.end(),
                                  std::back_inserter(odd));
    return std::all_of(odd.begin(), odd.end(), [&](int32_t p) {
        return visible(p) &&
               std::abs(scores[static_cast<size_t>(p)] - kth) <= kNearTie * std::abs(kth);
    });
}

template <typename T>
std::span<const T> row_of(const std::vector<T>& values, int64_t row, int64_t width) {
    return std::span<const T>(values).subspan(static_cast<size_t>(row * width),
                                              static_cast<size_t>(width));
}

}  // namespace

VerifyCase load_case(const std::filesystem::path& folder, const ModelConfig& config) {
    const CaseReader reader(folder / "case.safetensors");
    VerifyCase c;
    c.name = folder_name(folder);
    c.input_ids = reader.token_ids("input_ids", config.vocab_size);
    c.greedy_ids = reader.token_ids("greedy_ids", config.vocab_size);
    c.rows = reader.integers("rows", {-1}, 0, c.length());
    if (c.rows.empty() || !std::is_sorted(c.rows.begin(), c.rows.end(), std::less_equal<>())) {
        reader.fail("rows", "ascending positions", "none, or another order");
    }
    const auto num_rows = static_cast<int64_t>(c.rows.size());
    c.logits = reader.floats("logits", {num_rows, config.vocab_size});
    c.hidden = reader.floats("hidden", {config.num_hidden_layers, num_rows, config.hidden_size});
    c.nll = reader.floats("nll", {c.length() - 1});
    load_optional(reader, config, c);
    return c;
}

std::optional<double> SetFigures::recall() const {
    if (compared == 0) return std::nullopt;
    return shared / static_cast<double>(compared);
}

CaseComparison::CaseComparison(const VerifyCase& golden, const ModelConfig& config)
    : golden_(golden),
      config_(config),
      hidden_difference_(static_cast<size_t>(config.num_hidden_layers)),
      hidden_oracle_(static_cast<size_t>(config.num_hidden_layers)) {
    figures_.name = golden.name;
    figures_.argmax_steps = static_cast<int64_t>(golden.greedy_ids.size());
}

TraceRequest CaseComparison::prompt_request(int64_t begin, int64_t end) const {
    TraceRequest request;
    request.all_logits = true;  // for the NLL of every position
    request.hidden = true;
    request.topk = request.index_scores = !golden_.topk.empty();
    request.experts = !golden_.experts.empty();
    for (const int64_t row : golden_.rows) {
        if (row >= begin && row < end) request.rows.push_back(row);
    }
    return request;
}

void CaseComparison::add_prompt(int64_t begin, int64_t end, const Trace& trace) {
    const int64_t vocab = config_.vocab_size;
    for (int64_t p = begin; p < end && p + 1 < golden_.length(); ++p) {
        const auto logits = row_of(trace.logits, p - begin, vocab);
        const auto next = static_cast<size_t>(golden_.input_ids[static_cast<size_t>(p) + 1]);
        nll_ += log_sum_exp(logits) - logits[next];
    }
    for (size_t i = 0; i < trace.rows.size(); ++i) {
        const int64_t position = trace.rows[i];
        const auto found = std::lower_bound(golden_.rows.begin(), golden_.rows.end(), position);
        const auto row = static_cast<int64_t>(found - golden_.rows.begin());
        add_logits(row, row_of(trace.logits, position - begin, vocab));
        add_hidden(row, trace, i);
        if (!golden_.experts.empty()) add_experts(trace, i, position);
        if (golden_.topk.empty() || position < config_.index_topk) continue;
        add_topk(figures_.topk, golden_.topk, static_cast<int64_t>(golden_.rows.size()), row, trace,
                 i);
    }
}

void CaseComparison::add_logits(int64_t row, std::span<const float> logits) {
    const auto oracle = row_of(golden_.logits, row, config_.vocab_size);
    for (size_t i = 0; i < logits.size(); ++i) {
        const double difference = double{logits[i]} - oracle[i];
        difference_squared_ += difference * difference;
        oracle_squared_ += double{oracle[i]} * oracle[i];
    }
    figures_.logits_max = worse(figures_.logits_max, max_difference(logits, oracle));
    kl_ += kl_divergence(oracle, logits);
}

void CaseComparison::add_hidden(int64_t row, const Trace& trace, size_t traced_row) {
    const auto num_rows = static_cast<int64_t>(golden_.rows.size());
    for (size_t l = 0; l < hidden_oracle_.size(); ++l) {
        const auto oracle =
            row_of(golden_.hidden, static_cast<int64_t>(l) * num_rows + row, config_.hidden_size);
        const auto engine =
            row_of(trace.hidden.at(l), static_cast<int64_t>(traced_row), config_.hidden_size);
        for (size_t i = 0; i < oracle.size(); ++i) {
            const double difference = double{engine[i]} - oracle[i];
            hidden_difference_[l] += difference * difference;
            hidden_oracle_[l] += double{oracle[i]} * oracle[i];
        }
    }
}

void CaseComparison::add_experts(const Trace& trace, size_t traced_row, int64_t position) {
    const int64_t width = config_.num_experts_per_tok;
    for (size_t l = 0; l < trace.experts.size(); ++l) {
        const auto oracle =
            row_of(golden_.experts, static_cast<int64_t>(l) * golden_.length() + position, width);
        const auto engine = row_of(trace.experts[l], static_cast<int64_t>(traced_row), width);
        ++figures_.experts_compared;
        if (!std::equal(oracle.begin(), oracle.end(), engine.begin())) ++figures_.experts_differ;
    }
}

void CaseComparison::add_topk(SetFigures& figures, std::span<const int64_t> golden,
                              int64_t golden_rows, int64_t row, const Trace& trace,
                              size_t traced_row) const {
    const int64_t topk = config_.index_topk;
    for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
        const auto stored = golden.subspan(static_cast<size_t>((l * golden_rows + row) * topk),
                                           static_cast<size_t>(topk));
        const std::vector<int32_t> oracle(stored.begin(), stored.end());
        const auto layer = static_cast<size_t>(l);
        const std::vector<int32_t>& engine = trace.topk.at(layer).at(traced_row);
        ++figures.compared;
        std::vector<int32_t> shared;
        std::set_intersection(engine.begin(), engine.end(), oracle.begin(), oracle.end(),
                              std::back_inserter(shared));
        figures.shared += static_cast<double>(shared.size()) / static_cast<double>(topk);
        if (engine == oracle) continue;
        const bool close = engine.size() == oracle.size() &&
                           near_tie(engine, oracle, trace.index_scores.at(layer).at(traced_row));
        ++(close ? figures.near_ties : figures.differ);
    }
}

void CaseComparison::add_step(int64_t step, std::span<const float> logits) {
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    if (best == golden_.greedy_ids[static_cast<size_t>(step)]) ++figures_.argmax_right;
}

TraceRequest CaseComparison::decode_request(int64_t step) const {
    TraceRequest request;
    request.rows = {golden_.length() + step};
    request.topk = request.index_scores =
        !golden_.topk_decode.empty() && golden_.length() + step >= config_.index_topk;
    return request;
}

void CaseComparison::add_decode(int64_t step, std::span<const float> logits, const Trace& trace) {
    if (!golden_.logits_decode.empty()) {
        const auto oracle = row_of(golden_.logits_decode, step, config_.vocab_size);
        figures_.decode_logits_max =
            worse(figures_.decode_logits_max.value_or(0.0), max_difference(logits, oracle));
    }
    const auto layers = static_cast<size_t>(config_.num_hidden_layers);
    const auto steps =
        static_cast<int64_t>(golden_.topk_decode.size() / layers) / config_.index_topk;
    if (step >= steps || golden_.length() + step < config_.index_topk) return;
    add_topk(figures_.topk_decode, golden_.topk_decode, steps, step, trace, 0);
}

CaseFigures CaseComparison::figures() const {
    CaseFigures out = figures_;
    out.logits_rel = relative(difference_squared_, oracle_squared_);
    out.kl = kl_ / static_cast<double>(golden_.rows.size());
    for (size_t l = 0; l < hidden_oracle_.size(); ++l) {
        out.hidden = worse(out.hidden, relative(hidden_difference_[l], hidden_oracle_[l]));
    }
    if (!golden_.nll.empty()) {
        double oracle = 0;
        for (const float value : golden_.nll) oracle += value;
        out.nll_diff = (nll_ - oracle) / static_cast<double>(golden_.nll.size());
    }
    return out;
}

}  // namespace dsa::app
