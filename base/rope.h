#pragma once
// Rotary position embedding: YaRN frequencies and the two pairings that V3.2 uses.
// MLA rotates pairs (x[2i], x[2i+1]); the indexer rotates (x[i], x[i + dim/2]) (NeoX, half-split).
// Source: Peng et al., YaRN (arXiv 2309.00071), with DeepSeek-V3.2's ramp; cos and sin carry no
// magnitude factor, it is part of the softmax scale.

#include <cstdint>
#include <vector>

namespace dsa {

struct YarnParams {
    double factor = 1.0;  // 1: no scaling
    double beta_fast = 32.0;
    double beta_slow = 1.0;
    double mscale_all_dim = 0.0;
    double original_max_position_embeddings = 4096.0;
};

enum class RopePairing { kInterleaved, kHalfSplit };

// Angle per position of each pair, g_i, i in [0, dim / 2). In fp32 at every step, as is the product
// of position and frequency: models are trained and published with fp32 angles, and at position
// 10^4 a last bit of g_i is the largest difference between two implementations that are otherwise
// exact.
std::vector<float> rope_frequencies(int dim, double theta, const YarnParams& yarn);

// m^2 with m = 0.1 * mscale_all_dim * ln(factor) + 1: what YaRN multiplies the softmax scale by.
double yarn_softmax_factor(const YarnParams& yarn);

// cos and sin of every position below a limit, fp32. Immutable, shared by all threads.
class RopeTable {
  public:
    RopeTable() = default;
    RopeTable(int dim, double theta, const YarnParams& yarn, int64_t num_positions);

    int dim() const { return dim_; }
    // [dim / 2] each; 0 <= position < num_positions.
    const float* cos(int64_t position) const { return table_.data() + position * dim_; }
    const float* sin(int64_t position) const { return cos(position) + dim_ / 2; }

  private:
    int dim_ = 0;
    std::vector<float> table_;  // [num_positions, 2, dim / 2]
};

// Rotates x[dim] in place, in fp32.
void apply_rope(const RopeTable& table, RopePairing pairing, int64_t position, float* x);

}  // namespace dsa
