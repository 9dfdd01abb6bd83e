// Dispatch, the experts' products, combine.

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "moe/moe.h"

namespace dsa::moe {
namespace {

// Rows (token, slot) sorted by expert, tokens ascending within one.
struct Dispatch {
    int32_t* offsets;   // [num_experts + 1]
    int32_t* token_of;  // [rows]
    int32_t* row_of;    // [num_tokens, topk]: the inverse
};

Dispatch sort_by_expert(Exec& exec, const ExpertMlpParams& p) {
    const int64_t rows = p.num_tokens * p.topk;
    Dispatch d{exec.scratch.alloc<int32_t>(p.num_experts + 1), exec.scratch.alloc<int32_t>(rows),
               exec.scratch.alloc<int32_t>(rows)};
    auto* next = exec.scratch.alloc<int32_t>(p.num_experts);
    std::fill_n(d.offsets, p.num_experts + 1, 0);
    for (int64_t i = 0; i < rows; ++i) ++d.offsets[p.experts[i] + 1];
    for (int64_t e = 0; e < p.num_experts; ++e) d.offsets[e + 1] += d.offsets[e];
    std::copy_n(d.offsets, p.num_experts, next);
    for (int64_t i = 0; i < rows; ++i) {
        const int32_t row = next[p.experts[i]]++;
        d.row_of[i] = row;
        d.token_of[row] = static_cast<int32_t>(i / p.topk);
    }
    return d;
}

void gather_rows(Exec& exec, const bf16* x, int64_t hidden, const int32_t* token_of, int64_t rows,
                 bf16* out) {
    exec.pool.parallel_for(rows, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
            std::memcpy(out + row * hidden, x + token_of[row] * hidden,
                        static_cast<size_t>(hidden) * sizeof(bf16));
    });
}

// out[t] = bf16(sum_slots weight * y[row] + shared[t])
void combine(Exec& exec, const ExpertMlpParams& p, int64_t hidden, const Dispatch& d,
             const float* y, const float* shared) {
    const Arena::Scope scope(exec.scratch);
    auto* sums = exec.scratch.alloc<float>(exec.pool.num_threads() * align_up(hidden));
    exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int thread) {
        float* sum = sums + thread * align_up(hidden);
        for (int64_t t = begin; t < end; ++t) {
            std::fill_n(sum, hidden, 0.0F);
            for (int64_t i = t * p.topk; i < (t + 1) * p.topk; ++i) {
                const float* row = y + d.row_of[i] * hidden;
                const float w = p.weights[i];
                for (int64_t h = 0; h < hidden; ++h) sum[h] += w * row[h];
            }
            if (shared != nullptr)
                for (int64_t h = 0; h < hidden; ++h) sum[h] += shared[t * hidden + h];
            bf16* out = p.out + t * hidden;
            for (int64_t h = 0; h < hidden; ++h) out[h] = to_bf16(sum[h]);
        }
    });
}

void routed_mlp(Exec& exec, const ExpertMlpParams& p, const Dispatch& d, const bf16* x, float* y) {
    const int64_t rows = p.num_tokens * p.topk;
    const int64_t hidden = p.routed.gate[0]->k;
    const int64_t intermediate = p.routed.gate[0]->n;
    auto* gate = exec.scratch.alloc<bf16>(rows * intermediate);
    auto* up = exec.scratch.alloc<bf16>(rows * intermediate);
    gemm::GroupedLinearParams g;
    g.num_groups = p.num_experts;
    g.offsets = d.offsets;
    g.in = {x, hidden};
    g.precision = p.precision;
    g.format = p.format;
    const gemm::GroupedOutput first[] = {{p.routed.gate, {gate, DType::kBF16, intermediate}},
                                         {p.routed.up, {up, DType::kBF16, intermediate}}};
    g.outputs = first;
    gemm::m_grouped_linear_contiguous(exec, g);
    const gemm::GroupedOutput second[] = {{p.routed.down, {y, DType::kF32, hidden}}};
    g.in = {gate, intermediate, up};
    g.outputs = second;
    gemm::m_grouped_linear_contiguous(exec, g);
}

}  // namespace

void mlp(Exec& exec, const MlpParams& p) {
    const Arena::Scope scope(exec.scratch);
    const int64_t hidden = p.gate->k;
    const int64_t intermediate = p.gate->n;
    auto* gate = exec.scratch.alloc<bf16>(p.m * intermediate);
    auto* up = exec.scratch.alloc<bf16>(p.m * intermediate);
    const gemm::LinearOutput first[] = {{p.gate, {gate, DType::kBF16, intermediate}},
                                        {p.up, {up, DType::kBF16, intermediate}}};
    gemm::linear(exec, {p.m, {p.x, hidden}, p.precision, p.format, first});
    const gemm::LinearOutput second[] = {{p.down, p.out}};
    gemm::linear(exec, {p.m, {gate, intermediate, up}, p.precision, p.format, second});
}

int64_t mlp_scratch_bytes(int64_t m, int64_t hidden, int64_t intermediate, int num_threads) {
    return 2 * Arena::bytes_for<bf16>(m * intermediate) +
           gemm::linear_scratch_bytes(m, std::max(hidden, intermediate), num_threads);
}

void expert_mlp(Exec& exec, const ExpertMlpParams& p) {
    DSA_CHECK(p.num_tokens >= 1 && p.num_experts >= 1 && p.topk >= 1, "expert_mlp: ", p.num_tokens,
              " tokens, ", p.num_experts, " experts, topk ", p.topk, "; expected all >= 1");
    const Arena::Scope scope(exec.scratch);
    const int64_t hidden = p.routed.gate[0]->k;
    const int64_t rows = p.num_tokens * p.topk;
    const Dispatch d = sort_by_expert(exec, p);
    auto* x = exec.scratch.alloc<bf16>(rows * hidden);
    auto* y = exec.scratch.alloc<float>(rows * hidden);
    gather_rows(exec, p.x, hidden, d.token_of, rows, x);
    {
        const Arena::Scope products(exec.scratch);
        routed_mlp(exec, p, d, x, y);
    }
    float* shared = nullptr;
    if (p.shared_gate != nullptr) {
        shared = exec.scratch.alloc<float>(p.num_tokens * hidden);
        mlp(exec, {p.num_tokens,
                   p.x,
                   p.shared_gate,
                   p.shared_up,
                   p.shared_down,
                   p.precision,
                   p.format,
                   {shared, DType::kF32, hidden}});
    }
    combine(exec, p, hidden, d, y, shared);
}

int64_t expert_mlp_scratch_bytes(const ExpertMlpSizes& s, int num_threads) {
    const int64_t rows = s.num_tokens * s.topk;
    const int64_t dispatch = Arena::bytes_for<int32_t>(s.num_experts + 1) +
                             Arena::bytes_for<int32_t>(s.num_experts) +
                             2 * Arena::bytes_for<int32_t>(rows);
    const int64_t routed =
        2 * Arena::bytes_for<bf16>(rows * s.intermediate) +
        gemm::grouped_linear_scratch_bytes(rows, std::max(s.hidden, s.intermediate), s.num_experts,
                                           num_threads);
    const int64_t mlp =
        s.shared_intermediate > 0
            ? mlp_scratch_bytes(s.num_tokens, s.hidden, s.shared_intermediate, num_threads)
            : 0;
    const int64_t shared =
        s.shared_intermediate > 0 ? Arena::bytes_for<float>(s.num_tokens * s.hidden) : 0;
    const int64_t sums = Arena::bytes_for<float>(num_threads * align_up(s.hidden));
    return dispatch + Arena::bytes_for<bf16>(rows * s.hidden) +
           Arena::bytes_for<float>(rows * s.hidden) +
           std::max(routed, shared + std::max(mlp, sums));
}

}  // namespace dsa::moe
