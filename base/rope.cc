#include "base/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dsa {
namespace {

// Index of the pair that turns `rotations` times over the original context.
double correction_dim(double rotations, int dim, double theta, double original) {
    return dim * std::log(original / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(theta));
}

}  // namespace

std::vector<float> rope_frequencies(int dim, double theta, const YarnParams& yarn) {
    std::vector<float> g(static_cast<size_t>(dim / 2));
    const double original = yarn.original_max_position_embeddings;
    const auto low = static_cast<float>(
        std::max(std::floor(correction_dim(yarn.beta_fast, dim, theta, original)), 0.0));
    const auto high = static_cast<float>(
        std::min(std::ceil(correction_dim(yarn.beta_slow, dim, theta, original)), dim - 1.0));
    for (int i = 0; i < dim / 2; ++i) {
        const auto index = static_cast<float>(i);
        const float period =
            std::pow(static_cast<float>(theta), 2.0F * index / static_cast<float>(dim));
        const float plain = 1.0F / period;
        const float stretched = 1.0F / (static_cast<float>(yarn.factor) * period);
        const float ramp = std::clamp((index - low) / std::max(high - low, 0.001F), 0.0F, 1.0F);
        g[static_cast<size_t>(i)] =
            yarn.factor == 1.0 ? plain : stretched * ramp + plain * (1.0F - ramp);
    }
    return g;
}

double yarn_softmax_factor(const YarnParams& yarn) {
    if (yarn.factor <= 1.0) return 1.0;
    const double m = 0.1 * yarn.mscale_all_dim * std::log(yarn.factor) + 1.0;
    return m * m;
}

RopeTable::RopeTable(int dim, double theta, const YarnParams& yarn, int64_t num_positions)
    : dim_(dim), table_(static_cast<size_t>(num_positions * dim)) {
    const std::vector<float> g = rope_frequencies(dim, theta, yarn);
    float* row = table_.data();
    for (int64_t t = 0; t < num_positions; ++t, row += dim) {
        for (int i = 0; i < dim / 2; ++i) {
            const double angle = static_cast<float>(t) * g[static_cast<size_t>(i)];
            row[i] = static_cast<float>(std::cos(angle));
            row[dim / 2 + i] = static_cast<float>(std::sin(angle));
        }
    }
}

void apply_rope(const RopeTable& table, RopePairing pairing, int64_t position, float* x) {
    const float* c = table.cos(position);
    const float* s = table.sin(position);
    const int half = table.dim() / 2;
    const bool interleaved = pairing == RopePairing::kInterleaved;
    for (int i = 0; i < half; ++i) {
        float& a = x[interleaved ? 2 * i : i];
        float& b = x[interleaved ? 2 * i + 1 : i + half];
        const float a0 = a;
        a = a0 * c[i] - b * s[i];
        b = a0 * s[i] + b * c[i];
    }
}

}  // namespace dsa
