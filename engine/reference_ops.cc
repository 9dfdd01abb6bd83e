#include "engine/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/dtypes.h"
#include "engine/blas.h"

namespace dsa::reference {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

int to_blas(int64_t n) {
    return static_cast<int>(n);
}

float quantization_scale(float absmax, bool ue8m0) {
    const float a = std::max(absmax, 1e-4F);
    if (!ue8m0) return a / kE4m3Max;
    int exponent = 0;
    const float mantissa = std::frexp(a * (1.0F / kE4m3Max), &exponent);  // [0.5, 1)
    return std::ldexp(1.0F, mantissa == 0.5F ? exponent - 1 : exponent);
}

// Ids of the n largest values, ties to the lower id.
std::vector<int32_t> largest(std::span<const float> values, int64_t n) {
    std::vector<int32_t> ids(values.size());
    std::iota(ids.begin(), ids.end(), 0);
    const auto before = [&](int32_t a, int32_t b) {
        const float x = values[static_cast<size_t>(a)];
        const float y = values[static_cast<size_t>(b)];
        return x != y ? x > y : a < b;
    };
    std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), before);
    ids.resize(static_cast<size_t>(n));
    return ids;
}

}  // namespace

Matrix dequantize(const gemm::Weight& weight) {
    Matrix out{weight.n, weight.k, weight.is_fp8(), {}};
    out.data.resize(static_cast<size_t>(weight.n * weight.k));
    const int64_t scale_cols = gemm::num_blocks(weight.k);
    for (int64_t i = 0; i < weight.n; ++i) {
        float* to = out.data.data() + i * weight.k;
        if (weight.is_fp8()) {
            const e4m3* from = static_cast<const e4m3*>(weight.data) + i * weight.k;
            const float* scale = weight.scale_inv + i / gemm::kScaleBlock * scale_cols;
            for (int64_t j = 0; j < weight.k; ++j) {
                to[j] = to_float(from[j]) * scale[j / gemm::kScaleBlock];
            }
        } else {
            const bf16* from = static_cast<const bf16*>(weight.data) + i * weight.k;
            for (int64_t j = 0; j < weight.k; ++j) to[j] = to_float(from[j]);
        }
    }
    return out;
}

void sgemm_nt(int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx, const float* w,
              int64_t ldw, float beta, float* y, int64_t ldy) {
    blas().sgemm(kBlasRowMajor, kBlasNoTrans, kBlasTrans, to_blas(m), to_blas(n), to_blas(k), 1.0F,
                 x, to_blas(ldx), w, to_blas(ldw), beta, y, to_blas(ldy));
}

void sgemm_nn(int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx, const float* w,
              int64_t ldw, float* y, int64_t ldy) {
    blas().sgemm(kBlasRowMajor, kBlasNoTrans, kBlasNoTrans, to_blas(m), to_blas(n), to_blas(k),
                 1.0F, x, to_blas(ldx), w, to_blas(ldw), 0.0F, y, to_blas(ldy));
}

void matmul_nt(ThreadPool& pool, int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx,
               const float* w, int64_t ldw, float* y, int64_t ldy) {
    constexpr int64_t kColumns = 16;  // a thread takes whole tiles of the product
    pool.parallel_for((n + kColumns - 1) / kColumns, [&](int64_t begin, int64_t end, int) {
        const int64_t first = begin * kColumns;
        const int64_t last = std::min(end * kColumns, n);
        sgemm_nt(m, last - first, k, x, ldx, w + first * ldw, ldw, 0.0F, y + first, ldy);
    });
}

void round_to_bf16(std::span<float> x) {
    for (float& v : x) v = round_bf16(v);
}

void quantize_dequantize(std::span<float> x, int64_t k, bool ue8m0) {
    const int64_t rows = static_cast<int64_t>(x.size()) / k;
    for (int64_t r = 0; r < rows; ++r) {
        float* row = x.data() + r * k;
        for (int64_t begin = 0; begin < k; begin += gemm::kScaleBlock) {
            const int64_t end = std::min(begin + gemm::kScaleBlock, k);
            float absmax = 0.0F;
            for (int64_t i = begin; i < end; ++i) absmax = std::max(absmax, std::abs(row[i]));
            const float scale = quantization_scale(absmax, ue8m0);
            for (int64_t i = begin; i < end; ++i)
                row[i] = to_float(to_e4m3(row[i] / scale)) * scale;
        }
    }
}

void rms_norm(std::span<const float> x, const float* weight, double eps, float* out) {
    double sum = 0.0;
    for (float v : x) sum += static_cast<double>(v) * v;
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
    for (size_t i = 0; i < x.size(); ++i) out[i] = static_cast<float>(weight[i] * (x[i] * scale));
}

void layer_norm(std::span<const float> x, const float* weight, const float* bias, double eps,
                float* out) {
    const auto n = static_cast<double>(x.size());
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
    double variance = 0.0;
    for (float v : x) variance += (v - mean) * (v - mean);
    const double scale = 1.0 / std::sqrt(variance / n + eps);
    for (size_t i = 0; i < x.size(); ++i) {
        out[i] = static_cast<float>(weight[i] * ((x[i] - mean) * scale) + bias[i]);
    }
}

void hadamard(std::span<float> x) {
    const size_t n = x.size();
    for (size_t half = 1; half < n; half *= 2) {
        for (size_t i = 0; i < n; i += 2 * half) {
            for (size_t j = i; j < i + half; ++j) {
                const float a = x[j];
                const float b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
        }
    }
    const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
    for (float& v : x) v *= scale;
}

void softmax(std::span<float> x) {
    const float max = *std::max_element(x.begin(), x.end());
    double sum = 0.0;
    for (float& v : x) {
        v = std::exp(v - max);
        sum += v;
    }
    const auto scale = static_cast<float>(1.0 / sum);
    for (float& v : x) v *= scale;
}

void swiglu(std::span<const float> gate, std::span<const float> up, float* out) {
    for (size_t i = 0; i < gate.size(); ++i) {
        out[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
    }
}

std::vector<int32_t> top_k(std::span<const float> scores, int64_t k) {
    const auto n = static_cast<int64_t>(scores.size());
    std::vector<int32_t> positions;
    if (n <= k) {
        positions.resize(scores.size());
        std::iota(positions.begin(), positions.end(), 0);
        return positions;
    }
    std::vector<float> order(scores.size());
    std::transform(scores.begin(), scores.end(), order.begin(),
                   [](float v) { return std::isnan(v) ? kNegInf : v; });
    const std::vector<float> values = order;
    std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), std::greater<>());
    const float kth = order[static_cast<size_t>(k - 1)];
    const auto above =
        std::count_if(order.begin(), order.begin() + k, [kth](float v) { return v > kth; });
    int64_t ties_left = k - above;
    positions.reserve(static_cast<size_t>(k));
    for (int64_t i = 0; i < n; ++i) {
        const float v = values[static_cast<size_t>(i)];
        if (v > kth || (v == kth && ties_left-- > 0)) positions.push_back(static_cast<int32_t>(i));
    }
    return positions;
}

Route route(const ModelConfig& config, std::span<const float> logits, const float* bias) {
    const int64_t group_size = config.n_routed_experts / config.n_group;
    std::vector<float> affinity(logits.size());  // a
    std::vector<float> choice(logits.size());    // b = a + bias
    for (size_t e = 0; e < logits.size(); ++e) {
        affinity[e] = 1.0F / (1.0F + std::exp(-logits[e]));
        choice[e] = affinity[e] + bias[e];
    }
    std::vector<float> group_scores;
    for (int64_t g = 0; g < config.n_group; ++g) {
        const auto group = std::span<const float>(choice).subspan(
            static_cast<size_t>(g * group_size), static_cast<size_t>(group_size));
        float score = 0.0F;
        for (int32_t e : largest(group, std::min<int64_t>(2, group_size))) {
            score += group[static_cast<size_t>(e)];
        }
        group_scores.push_back(score);
    }
    std::vector<float> masked(choice.size(), kNegInf);
    for (int32_t g : largest(group_scores, config.topk_group)) {
        const int64_t first = g * group_size;
        std::copy_n(choice.begin() + first, group_size, masked.begin() + first);
    }

    Route result{largest(masked, config.num_experts_per_tok), {}};
    std::sort(result.experts.begin(), result.experts.end());
    float sum = 0.0F;
    for (int32_t e : result.experts) sum += affinity[static_cast<size_t>(e)];
    for (int32_t e : result.experts) {
        const float a = affinity[static_cast<size_t>(e)];
        result.weights.push_back((config.norm_topk_prob ? a / sum : a) *
                                 static_cast<float>(config.routed_scaling_factor));
    }
    return result;
}

}  // namespace dsa::reference
