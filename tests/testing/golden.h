#pragma once
// Golden cases (tests/golden/README.md) as flat row-major arrays. A tensor that a case lacks is
// empty.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dsa::testing {

struct GoldenCase {
    std::string name;             // "tiny-rand", "dsa-mini/chat", ...
    std::filesystem::path model;  // folder of the checkpoint

    int64_t S = 0;      // tokens of the prompt
    int64_t R = 0;      // kept rows
    int64_t V = 0;      // vocabulary
    int64_t L = 0;      // layers
    int64_t H = 0;      // hidden size
    int64_t k = 0;      // index_topk; 0 where topk is absent
    int64_t L_moe = 0;  // MoE layers; 0 where experts is absent
    int64_t K = 0;      // experts per token; likewise
    int64_t Q = 0;      // rows of index_scores

    std::vector<int32_t> input_ids;    // [S]
    std::vector<int32_t> greedy_ids;   // [n]
    std::vector<int64_t> rows;         // [R]
    std::vector<float> logits;         // [R, V]
    std::vector<float> hidden;         // [L, R, H]
    std::vector<float> nll;            // [S - 1]
    std::vector<int32_t> topk;         // [L, R, k], ascending, -1 in front
    std::vector<int32_t> topk_decode;  // [L, decode_steps, k]
    std::vector<float> logits_decode;  // [n, V]
    std::vector<int32_t> experts;      // [L_moe, S, K], ascending
    std::vector<int64_t> index_rows;   // [Q]
    std::vector<float> index_scores;   // [L, Q, S]
    std::vector<int64_t> mtp_rows;     // [R']
    std::vector<float> mtp_logits;     // [R', V]
    int64_t decode_steps = 0;          // of topk_decode: n or n - 1
};

// Throws dsa::Error where the case is missing or its shapes do not fit together.
GoldenCase load_golden(const std::string& name);

}  // namespace dsa::testing
