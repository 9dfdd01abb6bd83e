#include "testing/compare.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

namespace dsa::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNearTie = 1e-5;
constexpr double kTiny = 1e-30;

double log_sum_exp(std::span<const float> logits) {
    const double max = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (float v : logits) sum += std::exp(v - max);
    return max + std::log(sum);
}

}  // namespace

double max_abs_difference(std::span<const float> x, std::span<const float> oracle) {
    if (x.size() != oracle.size()) return kInfinity;
    double max = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
        const double d = std::abs(static_cast<double>(x[i]) - oracle[i]);
        if (std::isnan(d)) return kInfinity;
        max = std::max(max, d);
    }
    return max;
}

double relative_l2(std::span<const float> x, std::span<const float> oracle) {
    if (x.size() != oracle.size()) return kInfinity;
    double difference = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
        const double d = static_cast<double>(x[i]) - oracle[i];
        difference += d * d;
        norm += static_cast<double>(oracle[i]) * oracle[i];
    }
    const double result = std::sqrt(difference / norm);
    return std::isnan(result) ? kInfinity : result;
}

double mean_kl(std::span<const float> x, std::span<const float> oracle, int64_t vocab) {
    if (x.size() != oracle.size()) return kInfinity;
    const auto width = static_cast<size_t>(vocab);
    double sum = 0.0;
    for (size_t begin = 0; begin < x.size(); begin += width) {
        const auto p = oracle.subspan(begin, width);
        const auto q = x.subspan(begin, width);
        const double log_p = log_sum_exp(p);
        const double log_q = log_sum_exp(q);
        for (size_t i = 0; i < width; ++i) {
            const double lp = p[i] - log_p;
            sum += std::exp(lp) * (lp - (q[i] - log_q));
        }
    }
    const double mean = sum * static_cast<double>(width) / static_cast<double>(x.size());
    return std::isnan(mean) ? kInfinity : mean;
}

double token_nll(std::span<const float> logits, int32_t id) {
    return log_sum_exp(logits) - logits[static_cast<size_t>(id)];
}

int32_t argmax(std::span<const float> logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void TopkComparison::add(int64_t visible, std::span<const int32_t> selected,
                         std::span<const int32_t> oracle, std::span<const float> scores) {
    const auto first = std::find_if(oracle.begin(), oracle.end(), [](int32_t p) { return p >= 0; });
    const std::vector<int32_t> wanted(first, oracle.end());
    if (visible <= std::ssize(oracle)) {
        if (!std::equal(selected.begin(), selected.end(), wanted.begin(), wanted.end())) ++differ;
        return;
    }
    ++rows;
    std::vector<int32_t> both;
    std::set_intersection(selected.begin(), selected.end(), wanted.begin(), wanted.end(),
                          std::back_inserter(both));
    shared += static_cast<int64_t>(both.size());
    expected += static_cast<int64_t>(wanted.size());

    std::vector<int32_t> unequal;
    std::set_symmetric_difference(selected.begin(), selected.end(), wanted.begin(), wanted.end(),
                                  std::back_inserter(unequal));
    if (unequal.empty()) return;
    if (scores.empty() || selected.size() != wanted.size()) {
        ++differ;
        return;
    }
    double kth = kInfinity;
    for (int32_t p : selected) kth = std::min<double>(kth, scores[static_cast<size_t>(p)]);
    int64_t ties = 0;
    for (int32_t p : unequal) {
        const double distance =
            std::abs(scores[static_cast<size_t>(p)] - kth) / std::max(std::abs(kth), kTiny);
        farthest = std::max(farthest, distance);
        if (distance <= kNearTie) ++ties;
    }
    near_ties += ties;
    if (ties != std::ssize(unequal)) ++differ;
}

}  // namespace dsa::testing
