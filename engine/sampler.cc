#include "dsa/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "dsa/error.h"

namespace dsa {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

template <typename T>
void require(bool ok, const char* name, T value, const char* expected) {
    if (!ok) {
        throw_error(ErrorCode::kInvalidArgument, "sampling: ", name, " is ", value, ", expected ",
                    expected);
    }
}

void require_finite_logit(std::span<const float> logits) {
    if (logits.empty()) throw_error(ErrorCode::kInvalidArgument, "sampling: there are no logits");
    for (const float logit : logits) {
        if (std::isfinite(logit)) return;
    }
    throw_error(ErrorCode::kInvalidArgument, "sampling: none of the ", logits.size(),
                " logits is finite");
}

// NaN compares false, so it is never chosen.
int32_t argmax(std::span<const float> logits) {
    size_t best = 0;
    float best_logit = -kInf;
    for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] > best_logit) {
            best = i;
            best_logit = logits[i];
        }
    }
    return static_cast<int32_t>(best);
}

// NaN to -inf, +inf to the largest float: differences of two logits stay numbers.
void sanitize(std::span<const float> logits, std::vector<float>& out) {
    out.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) {
        const float logit = logits[i];
        out[i] = std::isnan(logit) ? -kInf : std::min(logit, kLargest);
    }
}

// From the original logit each time, so that a token seen twice is penalised once.
void penalize(std::span<const float> logits, std::span<const int32_t> seen, double penalty,
              std::vector<float>& out) {
    for (const int32_t id : seen) {
        if (id < 0 || static_cast<size_t>(id) >= logits.size()) {
            throw_error(ErrorCode::kInvalidArgument, "sampling: seen token id ", id,
                        ", expected 0 to ", logits.size() - 1);
        }
        const float logit = logits[static_cast<size_t>(id)];
        if (!std::isfinite(logit)) continue;
        const double penalized = logit > 0 ? logit / penalty : logit * penalty;
        out[static_cast<size_t>(id)] =
            static_cast<float>(std::clamp<double>(penalized, -kLargest, kLargest));
    }
}

// Likelier first, then the lower id.
struct Likelier {
    const float* logits;
    bool operator()(int32_t a, int32_t b) const {
        const float x = logits[a];
        const float y = logits[b];
        return x > y || (x == y && a < b);
    }
};

// The k likeliest ids of non-zero probability, in no order. One pass: what beats the k-th of a
// buffer of candidates joins it, and a full buffer is cut down to k.
void select_largest(std::span<const float> logits, size_t k, std::vector<int32_t>& ids) {
    const Likelier likelier{logits.data()};
    const size_t capacity = std::min(logits.size(), std::max(2 * k, k + 256));
    float threshold = -kInf;
    const auto cut = [&] {
        if (ids.size() <= k) return;
        const auto kth = ids.begin() + static_cast<std::ptrdiff_t>(k) - 1;
        std::nth_element(ids.begin(), kth, ids.end(), likelier);
        ids.resize(k);
        threshold = logits[static_cast<size_t>(ids.back())];
    };
    ids.clear();
    for (size_t i = 0; i < logits.size(); ++i) {
        // A later equal loses against the k-th: strictly greater is right.
        if (logits[i] > threshold) {
            ids.push_back(static_cast<int32_t>(i));
            if (ids.size() == capacity) cut();
        }
    }
    cut();
}

// exp((logit - largest) / temperature): probabilities times a common factor, the largest 1.
class Weights {
  public:
    Weights(const std::vector<float>& logits, double temperature)
        : logits_(logits.data()),
          largest_(*std::max_element(logits.begin(), logits.end())),
          temperature_(temperature) {}

    double operator()(int32_t id) const {
        const double x = (static_cast<double>(logits_[id]) - largest_) / temperature_;
        return x > kNegligible ? std::exp(x) : 0.0;
    }

    // A logit below which no weight reaches min_p. Generous: the exact test is on the weight.
    double bound(double min_p) const {
        if (min_p <= 0.0) return largest_ + (kNegligible - 1.0) * temperature_;
        return largest_ + (std::log(min_p) - 1e-6) * temperature_;
    }

  private:
    // e^-60 of the likeliest is beyond what a draw of 53 bits reaches, for any vocabulary.
    static constexpr double kNegligible = -60.0;
    const float* logits_;
    double largest_;
    double temperature_;
};

// Ids, likeliest first, with their weights. The vectors are the sampler's, to be used again.
struct Candidates {
    std::vector<int32_t>& ids;
    std::vector<double>& weights;

    void sort_and_weigh(const std::vector<float>& logits, const Weights& weight) {
        std::sort(ids.begin(), ids.end(), Likelier{logits.data()});
        weights.resize(ids.size());
        for (size_t i = 0; i < ids.size(); ++i) weights[i] = weight(ids[i]);
    }
    void truncate(size_t count) {
        if (count >= ids.size()) return;
        ids.resize(count);
        weights.resize(count);
    }
    double total() const {
        double sum = 0.0;
        for (const double weight : weights) sum += weight;
        return sum;
    }
    // How many of the first ones it takes to reach `mass`; size() + 1 if all don't.
    size_t count_of_mass(double mass) const {
        double sum = 0.0;
        for (size_t i = 0; i < weights.size(); ++i) {
            sum += weights[i];
            if (sum >= mass) return i + 1;
        }
        return weights.size() + 1;
    }
};

void keep_top_k(const std::vector<float>& logits, const Weights& weight, size_t k,
                Candidates& candidates) {
    select_largest(logits, k, candidates.ids);
    candidates.sort_and_weigh(logits, weight);
}

// Of the whole vocabulary: more and more of the likeliest, until they reach the mass.
void keep_top_p(const std::vector<float>& logits, const Weights& weight, double top_p,
                Candidates& candidates) {
    double total = 0.0;
    for (size_t i = 0; i < logits.size(); ++i) total += weight(static_cast<int32_t>(i));
    for (size_t k = 256;; k *= 8) {
        keep_top_k(logits, weight, std::min(k, logits.size()), candidates);
        const size_t count = candidates.count_of_mass(top_p * total);
        if (count <= candidates.ids.size() || k >= logits.size()) {
            return candidates.truncate(count);
        }
    }
}

// The whole vocabulary, ids ascending, but for what min_p or an unreachable weight leaves out.
void keep_all(const std::vector<float>& logits, const Weights& weight, double min_p,
              Candidates& candidates) {
    candidates.ids.clear();
    candidates.weights.clear();
    const double bound = weight.bound(min_p);
    for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] < bound) continue;
        const auto id = static_cast<int32_t>(i);
        candidates.ids.push_back(id);
        candidates.weights.push_back(weight(id));
    }
}

void keep_min_p(double min_p, Candidates& candidates) {
    size_t kept = 0;
    for (size_t i = 0; i < candidates.ids.size(); ++i) {
        if (candidates.weights[i] < min_p) continue;
        candidates.ids[kept] = candidates.ids[i];
        candidates.weights[kept++] = candidates.weights[i];
    }
    candidates.truncate(kept);
}

int32_t draw(const Candidates& candidates, double uniform) {
    const double target = uniform * candidates.total();
    double sum = 0.0;
    size_t last = 0;
    for (size_t i = 0; i < candidates.ids.size(); ++i) {
        if (candidates.weights[i] <= 0.0) continue;
        last = i;
        sum += candidates.weights[i];
        if (target < sum) break;
    }
    return candidates.ids[last];
}

}  // namespace

Sampler::Sampler(const SamplingParams& params) : params_(params), state_(params.seed) {
    const SamplingParams& p = params;
    require(std::isfinite(p.temperature) && p.temperature >= 0, "temperature", p.temperature,
            "a number >= 0");
    require(p.top_k >= 0, "top_k", p.top_k, "a number >= 0");
    require(p.top_p > 0 && p.top_p <= 1, "top_p", p.top_p, "a number > 0 and <= 1");
    require(p.min_p >= 0 && p.min_p <= 1, "min_p", p.min_p, "a number from 0 to 1");
    require(std::isfinite(p.repetition_penalty) && p.repetition_penalty > 0, "repetition_penalty",
            p.repetition_penalty, "a number > 0");
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> seen) {
    require_finite_logit(logits);
    const bool penalty = params_.repetition_penalty != 1.0;
    if (params_.temperature == 0.0 && !penalty) return argmax(logits);
    sanitize(logits, adjusted_);
    if (penalty) penalize(logits, seen, params_.repetition_penalty, adjusted_);
    if (params_.temperature == 0.0) return argmax(adjusted_);

    const size_t vocab_size = adjusted_.size();
    order_.reserve(vocab_size);
    probs_.reserve(vocab_size);
    const Weights weight(adjusted_, params_.temperature);
    Candidates candidates{order_, probs_};
    if (params_.top_k > 0 && static_cast<uint64_t>(params_.top_k) < vocab_size) {
        keep_top_k(adjusted_, weight, static_cast<size_t>(params_.top_k), candidates);
        if (params_.top_p < 1.0) {
            candidates.truncate(candidates.count_of_mass(params_.top_p * candidates.total()));
        }
    } else if (params_.top_p < 1.0) {
        keep_top_p(adjusted_, weight, params_.top_p, candidates);
    } else {
        keep_all(adjusted_, weight, params_.min_p, candidates);
    }
    if (params_.min_p > 0.0) keep_min_p(params_.min_p, candidates);
    return draw(candidates, uniform());
}

// splitmix64 (Steele, Lea, Flood 2014; constants of Vigna's public-domain version): any seed is
// good.
double Sampler::uniform() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return static_cast<double>(z >> 11) * 0x1p-53;
}

}  // namespace dsa
