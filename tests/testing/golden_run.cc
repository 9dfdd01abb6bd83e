#include "testing/golden_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <span>
#include <string>

namespace dsa::testing {
namespace {

// Tokens a call.
constexpr int64_t kCall = CpuForward::kMaxTokens;

size_t index_of(const std::vector<int64_t>& sorted, int64_t value) {
    return static_cast<size_t>(std::lower_bound(sorted.begin(), sorted.end(), value) -
                               sorted.begin());
}

template <typename T>
std::span<const T> piece(const std::vector<T>& values, int64_t index, int64_t size) {
    return std::span(values).subspan(static_cast<size_t>(index * size), static_cast<size_t>(size));
}

void run_prompt(const Forward& forward, const GoldenCase& golden, GoldenRun& run) {
    double nll = 0.0;
    std::vector<float> logits;
    for (int64_t begin = 0; begin < golden.S; begin += kCall) {
        const int64_t n = std::min(kCall, golden.S - begin);
        std::vector<int64_t> rows(static_cast<size_t>(n));
        std::iota(rows.begin(), rows.end(), 0);
        logits.resize(static_cast<size_t>(n * golden.V));
        forward(begin,
                piece(golden.input_ids, 0, golden.S)
                    .subspan(static_cast<size_t>(begin), static_cast<size_t>(n)),
                rows, logits.data(), &run.trace);
        for (int64_t r = 0; r < n; ++r) {
            const auto row = piece(logits, r, golden.V);
            const int64_t position = begin + r;
            if (position + 1 < golden.S) {
                nll += token_nll(row, golden.input_ids[static_cast<size_t>(position + 1)]);
            }
            if (std::binary_search(golden.rows.begin(), golden.rows.end(), position)) {
                run.logits.insert(run.logits.end(), row.begin(), row.end());
            }
        }
    }
    const double oracle = std::accumulate(golden.nll.begin(), golden.nll.end(), 0.0);
    run.nll_difference = (nll - oracle) / static_cast<double>(golden.S - 1);
    run.logits_max_abs = max_abs_difference(run.logits, golden.logits);
    run.logits_rel_l2 = relative_l2(run.logits, golden.logits);
    run.kl = mean_kl(run.logits, golden.logits, golden.V);
}

void run_decode(const Forward& forward, const GoldenCase& golden, GoldenRun& run) {
    const auto n = std::ssize(golden.greedy_ids);
    run.steps = n;
    std::vector<float> logits(run.logits.end() - golden.V, run.logits.end());  // the last row
    const std::vector<int64_t> row = {0};
    for (int64_t j = 0; j < n; ++j) {
        if (argmax(logits) == golden.greedy_ids[static_cast<size_t>(j)]) ++run.argmax_right;
        forward(golden.S + j, piece(golden.greedy_ids, j, 1), row, logits.data(), &run.trace);
        if (!golden.logits_decode.empty()) {
            run.decode_max_abs =
                std::max(run.decode_max_abs,
                         max_abs_difference(logits, piece(golden.logits_decode, j, golden.V)));
        }
    }
}

void compare_topk(const GoldenCase& golden, GoldenRun& run) {
    for (size_t l = 0; l < static_cast<size_t>(golden.L); ++l) {
        const auto layer = static_cast<int64_t>(l);
        for (int64_t r = 0; r < golden.R; ++r) {
            const int64_t row = golden.rows[static_cast<size_t>(r)];
            const size_t scores = index_of(run.trace.index_rows, row);
            run.topk.add(row + 1, run.trace.topk[l][static_cast<size_t>(r)],
                         piece(golden.topk, layer * golden.R + r, golden.k),
                         run.trace.index_scores[l][scores]);
        }
        for (int64_t j = 0; j < golden.decode_steps; ++j) {
            const size_t scores = index_of(run.trace.index_rows, golden.S + j);
            run.topk.add(golden.S + j + 1, run.trace.topk[l][static_cast<size_t>(golden.R + j)],
                         piece(golden.topk_decode, layer * golden.decode_steps + j, golden.k),
                         run.trace.index_scores[l][scores]);
        }
    }
}

// Relative L2 of a layer's index scores over the visible positions of the case's rows.
double compare_index_scores(const GoldenCase& golden, const ForwardTrace& trace, int64_t layer) {
    std::vector<float> scores;
    std::vector<float> oracle;
    for (int64_t q = 0; q < golden.Q; ++q) {
        const int64_t row = golden.index_rows[static_cast<size_t>(q)];
        const auto& visible =
            trace.index_scores[static_cast<size_t>(layer)][index_of(trace.index_rows, row)];
        scores.insert(scores.end(), visible.begin(), visible.end());
        const auto stored = piece(golden.index_scores, layer * golden.Q + q, golden.S);
        oracle.insert(oracle.end(), stored.begin(), stored.begin() + row + 1);
    }
    return relative_l2(scores, oracle);
}

void compare_layers(const GoldenCase& golden, GoldenRun& run) {
    for (int64_t l = 0; l < golden.L; ++l) {
        const std::vector<float>& hidden = run.trace.hidden[static_cast<size_t>(l)];
        run.hidden =
            std::max(run.hidden, relative_l2(piece(hidden, 0, golden.R * golden.H),
                                             piece(golden.hidden, l, golden.R * golden.H)));
        if (golden.Q > 0)
            run.index_scores =
                std::max(run.index_scores, compare_index_scores(golden, run.trace, l));
    }
    // Kept rows are all rows in cases that have experts.
    for (int64_t l = 0; l < golden.L_moe; ++l) {
        for (int64_t r = 0; r < golden.S; ++r) {
            const auto chosen = piece(run.trace.experts[static_cast<size_t>(l)], r, golden.K);
            const auto oracle = piece(golden.experts, l * golden.S + r, golden.K);
            ++run.expert_rows;
            if (!std::equal(chosen.begin(), chosen.end(), oracle.begin())) ++run.expert_rows_differ;
        }
    }
}

}  // namespace

GoldenRun run_golden(const GoldenCase& golden, const Forward& forward) {
    const auto start = std::chrono::steady_clock::now();
    const auto n = std::ssize(golden.greedy_ids);
    GoldenRun run;
    run.trace.rows = golden.rows;
    for (int64_t j = 0; j < n; ++j) run.trace.rows.push_back(golden.S + j);
    run.trace.want_hidden = run.trace.want_topk = run.trace.want_experts = true;
    run.trace.index_rows = run.trace.rows;  // near ties are judged by the scores of the run
    run.trace.index_rows.insert(run.trace.index_rows.end(), golden.index_rows.begin(),
                                golden.index_rows.end());
    std::sort(run.trace.index_rows.begin(), run.trace.index_rows.end());
    run.trace.index_rows.erase(
        std::unique(run.trace.index_rows.begin(), run.trace.index_rows.end()),
        run.trace.index_rows.end());

    run_prompt(forward, golden, run);
    run_decode(forward, golden, run);
    if (golden.k > 0) compare_topk(golden, run);
    compare_layers(golden, run);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf(
        "%-22s logits max %.2g rel %.2g, KL %.2g, hidden %.2g, NLL %+.2g, "
        "index scores %.2g, top-k rows %ld differ %ld near ties %ld farthest %.2g recall %.4f, "
        "expert rows %ld differ %ld, argmax %ld/%ld, decode max %.2g, %.1f s\n",
        golden.name.c_str(), run.logits_max_abs, run.logits_rel_l2, run.kl, run.hidden,
        run.nll_difference, run.index_scores, static_cast<long>(run.topk.rows),
        static_cast<long>(run.topk.differ), static_cast<long>(run.topk.near_ties),
        run.topk.farthest, run.topk.recall(), static_cast<long>(run.expert_rows),
        static_cast<long>(run.expert_rows_differ), static_cast<long>(run.argmax_right),
        static_cast<long>(run.steps), run.decode_max_abs, seconds.count());
    return run;
}

GoldenRun run_reference(const GoldenCase& golden, const ReferenceSteps& steps, int threads) {
    const Checkpoint checkpoint(golden.model);
    const int64_t context = golden.S + std::ssize(golden.greedy_ids);
    const ReferenceModel model(checkpoint, steps, context, threads);
    ReferenceCache cache(checkpoint.config(), context);
    return run_golden(
        golden, [&](int64_t position, std::span<const int32_t> ids, std::span<const int64_t> rows,
                    float* logits, ForwardTrace* trace) {
            model.forward(cache, position, ids, rows, logits, trace);
        });
}

GoldenRun run_cpu(const GoldenCase& golden, Isa isa, gemm::Precision precision, int threads) {
    CpuForward cpu(golden.model, isa, precision, golden.S + std::ssize(golden.greedy_ids), threads);
    return run_golden(
        golden, [&](int64_t position, std::span<const int32_t> ids, std::span<const int64_t> rows,
                    float* logits, ForwardTrace* trace) {
            cpu.model.forward(cpu.exec, cpu.cache, position, ids, rows, logits, trace);
        });
}

std::vector<LayerErrors> run_layers(const GoldenCase& golden, const ForwardLayer& forward_layer) {
    const Checkpoint checkpoint(golden.model);
    const auto* embedding = static_cast<const bf16*>(checkpoint.weights().embed_tokens.data);
    std::vector<float> input;
    for (const int32_t id : golden.input_ids)
        for (int64_t d = 0; d < golden.H; ++d)
            input.push_back(to_float(embedding[id * golden.H + d]));
    std::vector<LayerErrors> errors;
    for (int64_t l = 0; l < golden.L; ++l) {
        ForwardTrace trace;
        trace.index_rows = golden.index_rows;
        const std::vector<float> output = forward_layer(l, input, &trace);
        const auto oracle = piece(golden.hidden, l, golden.S * golden.H);
        errors.push_back({compare_index_scores(golden, trace, l), relative_l2(output, oracle)});
        std::printf("%s layer %d: index scores %.2g, output %.2g\n", golden.name.c_str(),
                    static_cast<int>(l), errors.back().index_scores, errors.back().output);
        input.assign(oracle.begin(), oracle.end());
    }
    return errors;
}

void check_mini_cases(const MiniBounds& bounds,
                      const std::function<GoldenRun(const GoldenCase&)>& run_case) {
    int64_t right = 0;
    int64_t steps = 0;
    for (const std::string name :
         {"chat", "chat-turns", "text-1500", "recall-3000", "recall-9000"}) {
        SCOPED_TRACE(name);
        const GoldenRun run = run_case(load_golden("dsa-mini/" + name));
        EXPECT_LE(run.kl, name.starts_with("chat") ? bounds.kl_chat : bounds.kl_text);
        if (name == "text-1500" || name == "recall-3000") {
            EXPECT_LE(std::abs(run.nll_difference), bounds.nll);
        }
        if (name == "recall-3000") {
            EXPECT_GE(run.topk.recall(), 0.98);
        }
        if (name == "recall-9000") {
            EXPECT_GE(run.topk.recall(), 0.97);
        }
        if (name != "chat" && name != "text-1500") {
            EXPECT_EQ(run.argmax_right, run.steps) << "the answer differs";
        }
        right += run.argmax_right;
        steps += run.steps;
    }
    EXPECT_EQ(steps, 97);
    EXPECT_GE(right, bounds.argmax);
}

}  // namespace dsa::testing
