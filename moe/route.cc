#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "moe/moe.h"

namespace dsa::moe {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

// Index of the largest, the first of equals; NaN never wins over a number.
int64_t argmax(const float* x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; ++i)
        if (x[i] > x[best] || (std::isnan(x[best]) && !std::isnan(x[i]))) best = i;
    return best;
}

float sum_of_two_largest(const float* x, int64_t n) {
    float first = kNegInf;
    float second = kNegInf;
    for (int64_t i = 0; i < n; ++i) {
        if (x[i] > first) {
            second = first;
            first = x[i];
        } else if (x[i] > second) {
            second = x[i];
        }
    }
    return first + second;
}

struct Work {
    float* scores;  // a, [num_experts]
    float* choice;  // b, [num_experts]
    float* groups;  // [n_group]
};

void keep_best_groups(const RouteParams& p, const Work& work) {
    const int64_t size = p.num_experts / p.n_group;
    for (int64_t g = 0; g < p.n_group; ++g)
        work.groups[g] = sum_of_two_largest(work.choice + g * size, size);
    for (int64_t kept = 0; kept < p.topk_group; ++kept)
        work.groups[argmax(work.groups, p.n_group)] = std::numeric_limits<float>::quiet_NaN();
    for (int64_t g = 0; g < p.n_group; ++g)
        if (!std::isnan(work.groups[g])) std::fill_n(work.choice + g * size, size, kNegInf);
}

void route_token(const RouteParams& p, int64_t token, const Work& work) {
    const float* logits = p.logits + token * p.num_experts;
    for (int64_t e = 0; e < p.num_experts; ++e) {
        work.scores[e] = 1.0F / (1.0F + std::exp(-logits[e]));
        work.choice[e] = work.scores[e] + p.bias[e];
    }
    if (p.topk_group < p.n_group) keep_best_groups(p, work);
    int32_t* experts = p.experts + token * p.topk;
    for (int64_t i = 0; i < p.topk; ++i) {
        const int64_t best = argmax(work.choice, p.num_experts);
        experts[i] = static_cast<int32_t>(best);
        work.choice[best] = std::numeric_limits<float>::quiet_NaN();  // never again
    }
    std::sort(experts, experts + p.topk);
    float sum = 0.0F;
    for (int64_t i = 0; i < p.topk; ++i) sum += work.scores[experts[i]];
    const float factor = p.routed_scaling_factor / (p.norm_topk_prob ? sum : 1.0F);
    for (int64_t i = 0; i < p.topk; ++i)
        p.weights[token * p.topk + i] = work.scores[experts[i]] * factor;
}

int64_t work_floats(int64_t num_experts, int64_t n_group) {
    return align_up(2 * num_experts + n_group, kAlignment / 4);
}

}  // namespace

void route(Exec& exec, const RouteParams& p) {
    DSA_CHECK(p.n_group >= 1 && p.num_experts % p.n_group == 0, "route: ", p.num_experts,
              " experts in ", p.n_group, " groups, expected equal groups");
    DSA_CHECK(p.topk_group >= 1 && p.topk_group <= p.n_group, "route: topk_group is ", p.topk_group,
              ", expected 1 to ", p.n_group);
    DSA_CHECK(p.topk >= 1 && p.topk <= p.num_experts / p.n_group * p.topk_group, "route: topk is ",
              p.topk, ", expected 1 to ", p.num_experts / p.n_group * p.topk_group);
    const Arena::Scope scope(exec.scratch);
    const int64_t floats = work_floats(p.num_experts, p.n_group);
    auto* work = exec.scratch.alloc<float>(exec.pool.num_threads() * floats);
    exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int thread) {
        float* scores = work + thread * floats;
        const Work mine{scores, scores + p.num_experts, scores + 2 * p.num_experts};
        for (int64_t t = begin; t < end; ++t) route_token(p, t, mine);
    });
}

int64_t route_scratch_bytes(int64_t num_experts, int64_t n_group, int num_threads) {
    return Arena::bytes_for<float>(num_threads * work_floats(num_experts, n_group));
}

}  // namespace dsa::moe
