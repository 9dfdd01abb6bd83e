#pragma once
// Runs a golden case through a forward pass: the reference, or the kernels.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "engine/model.h"
#include "engine/reference.h"
#include "testing/compare.h"
#include "testing/golden.h"

namespace dsa::testing {

struct GoldenRun {
    std::vector<float> logits;  // [R, V], kept rows
    ForwardTrace trace;         // of the kept rows, then of the decode steps
    double logits_max_abs = 0.0;
    double logits_rel_l2 = 0.0;
    double kl = 0.0;
    double hidden = 0.0;  // relative L2 of the worst layer
    double nll_difference = 0.0;
    double index_scores = 0.0;  // relative L2 of the worst layer, where the case has scores
    TopkComparison topk;        // prompt and decode steps
    int64_t expert_rows = 0;    // compared
    int64_t expert_rows_differ = 0;
    int64_t steps = 0;
    int64_t argmax_right = 0;
    double decode_max_abs = 0.0;  // where the case has logits of the steps
};

using Forward =
    std::function<void(int64_t position, std::span<const int32_t> ids,
                       std::span<const int64_t> logit_rows, float* logits, ForwardTrace* trace)>;

// Prompt in calls of at most 512 tokens, then the oracle's greedy tokens one by one. Prints one
// line.
GoldenRun run_golden(const GoldenCase& golden, const Forward& forward);
GoldenRun run_reference(const GoldenCase& golden, const ReferenceSteps& steps, int threads = 2);
GoldenRun run_cpu(const GoldenCase& golden, Isa isa, gemm::Precision precision, int threads = 2);

// The forward pass over the kernels, with what it needs, for calls of up to kMaxTokens tokens.
struct CpuForward {
    static constexpr int64_t kMaxTokens = 512;

    Checkpoint checkpoint;
    Model model;
    KvCache cache;
    ThreadPool pool;
    Arena scratch;
    Exec exec;

    CpuForward(const std::filesystem::path& folder, Isa isa, gemm::Precision precision,
               int64_t context, int threads)
        : checkpoint(folder),
          model(checkpoint, precision, context),
          cache(checkpoint.config(), context),
          pool(threads),
          scratch(Model::scratch_bytes(checkpoint.config(), kMaxTokens, context, threads)),
          exec{pool, scratch, isa} {}
};

// Each layer from the oracle's hidden state of the layer before: errors do not add up, so that a
// wrong detail shows where it is. Relative L2.
struct LayerErrors {
    double index_scores;
    double output;
};
using ForwardLayer = std::function<std::vector<float>(int64_t layer, std::span<const float> hidden,
                                                      ForwardTrace* trace)>;
std::vector<LayerErrors> run_layers(const GoldenCase& golden, const ForwardLayer& forward_layer);

// The five dsa-mini cases against the oracle: every bound is checked with EXPECT.
struct MiniBounds {
    double kl_text;  // mean KL of text-1500, recall-3000 and recall-9000
    double kl_chat;  // of the two chats
    double nll;      // difference of the mean, text-1500 and recall-3000
    int64_t argmax;  // greedy steps right, of 97
};
void check_mini_cases(const MiniBounds& bounds,
                      const std::function<GoldenRun(const GoldenCase&)>& run_case);

}  // namespace dsa::testing
