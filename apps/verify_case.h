#pragma once
// A case of `dsa verify`: the oracle's outputs for one prompt, and what the engine's differ by.
// Layout of a case folder and the meaning of each figure: tests/golden/README.md.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dsa/engine.h"

namespace dsa::app {

struct VerifyCase {
    std::string name;
    std::vector<int32_t> input_ids;    // [S]
    std::vector<int64_t> rows;         // [R], positions of the prompt
    std::vector<float> logits;         // [R, vocab_size]
    std::vector<float> hidden;         // [layers, R, hidden_size]
    std::vector<float> nll;            // [S - 1]
    std::vector<int32_t> greedy_ids;   // [n]
    std::vector<int64_t> topk;         // [layers, R, index_topk]; empty: not in the case
    std::vector<int64_t> topk_decode;  // [layers, decode_steps, index_topk]; empty likewise
    std::vector<float> logits_decode;  // [n, vocab_size]; empty likewise
    std::vector<int64_t> experts;      // [MoE layers, S, num_experts_per_tok]; empty likewise
    int64_t decode_steps = 0;          // fed tokens that have outputs in the case

    int64_t length() const { return static_cast<int64_t>(input_ids.size()); }
    // What a session needs for prompt and continuation.
    int64_t context_length() const { return length() + static_cast<int64_t>(greedy_ids.size()); }
};

// Throws kNotFound, or kInvalidModel naming the tensor, where the case is incomplete or belongs to
// a model of another shape.
VerifyCase load_case(const std::filesystem::path& folder, const ModelConfig& config);

// Selected sets compared with the oracle's.
struct SetFigures {
    int64_t compared = 0;
    int64_t differ = 0;
    int64_t near_ties = 0;  // sets that differ only in near ties; not among `differ`
    double shared = 0;      // sum of shared positions / index_topk
    std::optional<double> recall() const;
};

struct CaseFigures {
    std::string name;
    double logits_max = 0;
    double logits_rel = 0;  // relative L2
    double kl = 0;          // mean over the rows
    double hidden = 0;      // relative L2 of the worst layer
    double nll_diff = 0;    // mean of the engine's minus mean of the oracle's
    SetFigures topk;        // rows of the prompt
    SetFigures topk_decode;
    std::optional<double> decode_logits_max;
    int64_t experts_compared = 0;  // (layer, row) pairs
    int64_t experts_differ = 0;
    int64_t argmax_right = 0;
    int64_t argmax_steps = 0;
};

// Gathers the figures while a case runs. Rows may come in any number of calls, ascending.
class CaseComparison {
  public:
    CaseComparison(const VerifyCase& golden, const ModelConfig& config);

    // What to record of the tokens [begin, end) of the prompt.
    TraceRequest prompt_request(int64_t begin, int64_t end) const;
    void add_prompt(int64_t begin, int64_t end, const Trace& trace);
    // Logits before step j is fed; the argmax should be greedy_ids[j].
    void add_step(int64_t step, std::span<const float> logits);
    // What to record of the step that is fed greedy_ids[step], and its outputs.
    TraceRequest decode_request(int64_t step) const;
    void add_decode(int64_t step, std::span<const float> logits, const Trace& trace);

    CaseFigures figures() const;

  private:
    void add_logits(int64_t row, std::span<const float> logits);
    void add_hidden(int64_t row, const Trace& trace, size_t traced_row);
    void add_experts(const Trace& trace, size_t traced_row, int64_t position);
    void add_topk(SetFigures& figures, std::span<const int64_t> golden, int64_t golden_rows,
                  int64_t row, const Trace& trace, size_t traced_row) const;

    const VerifyCase& golden_;
    const ModelConfig& config_;
    CaseFigures figures_;
    double difference_squared_ = 0, oracle_squared_ = 0;     // logits
    double kl_ = 0, nll_ = 0;                                // sums
    std::vector<double> hidden_difference_, hidden_oracle_;  // squared, [layers]
};

}  // namespace dsa::app
