#pragma once
// RoPE and softmax scale as the configuration has them.

#include <cmath>

#include "base/rope.h"
#include "dsa/model_info.h"

namespace dsa {

inline YarnParams yarn_params(const ModelConfig& config) {
    return {config.rope_factor, config.rope_beta_fast, config.rope_beta_slow,
            config.rope_mscale_all_dim,
            static_cast<double>(config.rope_original_max_position_embeddings)};
}

// sigma = (qk_nope + qk_rope)^-0.5 * m^2; the same in the absorbed form.
inline double softmax_scale(const ModelConfig& config) {
    return yarn_softmax_factor(yarn_params(config)) /
           std::sqrt(static_cast<double>(config.qk_nope_head_dim + config.qk_rope_head_dim));
}

}  // namespace dsa
