// Operators between the products: the activation quantiser, SwiGLU and norms.

#include "gemm/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "gemm/cpu/select.h"
#include "gemm/quantize.h"
#include "testing/op_fixture.h"

namespace dsa::gemm {
namespace {

using testing::OpContext;
using testing::Random;

class ActivationIsa : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, ActivationIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });

TEST_P(ActivationIsa, QuantiserHasTheSameBitsInEveryIsa) {
    OpContext context(GetParam());
    OpContext portable(Isa::kPortable);
    Random random(6);
    const int64_t m = 9;
    const int64_t k = 300;
    std::vector<bf16> x = random.bf16s(m * k, 3.0F);
    for (int64_t j = 0; j < k; ++j) x[static_cast<size_t>(j)].bits = 0;  // an all-zero row
    for (int64_t j = 0; j < k; ++j) x[static_cast<size_t>(k + j)] = to_bf16(random.normal(1e-6F));
    x[static_cast<size_t>(2 * k + 7)] = to_bf16(NAN);
    x[static_cast<size_t>(3 * k + 7)] = to_bf16(448.0F);
    for (const ScaleFormat format : {ScaleFormat::kPlain, ScaleFormat::kUe8m0}) {
        std::vector<e4m3> q(static_cast<size_t>(m * k));
        std::vector<e4m3> q_portable(q.size());
        std::vector<float> s(static_cast<size_t>(m * 3));
        std::vector<float> s_portable(s.size());
        quantize_1x128(context.exec, {m, k, x.data(), k, format, q.data(), s.data()});
        quantize_1x128(portable.exec,
                       {m, k, x.data(), k, format, q_portable.data(), s_portable.data()});
        EXPECT_EQ(std::memcmp(q.data(), q_portable.data(), q.size()), 0);
        EXPECT_EQ(std::memcmp(s.data(), s_portable.data(), s.size() * 4), 0);
        for (int64_t i = 4; i < m; ++i) {
            for (int64_t j = 0; j < k; ++j) {
                const float scale = s[static_cast<size_t>(i * 3 + j / 128)];
                const float value = to_float(x[static_cast<size_t>(i * k + j)]);
                const float back = to_float(q[static_cast<size_t>(i * k + j)]) * scale;
                ASSERT_LE(std::fabs(back - value), std::fabs(value) / 16.0F + scale * 0.002F);
            }
        }
        if (format == ScaleFormat::kUe8m0)
            for (const float scale : s) {
                int exponent = 0;
                ASSERT_EQ(std::frexp(scale, &exponent), 0.5F);
            }
    }
}

TEST_P(ActivationIsa, SiluMulMatchesDouble) {
    Random random(7);
    const int64_t n = 77;
    std::vector<bf16> gate = random.bf16s(3 * n, 4.0F);
    const std::vector<bf16> up = random.bf16s(3 * n);
    gate[0] = to_bf16(-200.0F);
    gate[1] = to_bf16(200.0F);
    gate[2] = to_bf16(NAN);
    std::vector<bf16> out(gate.size());
    cpu::kernels_for(GetParam()).silu_mul(&gate[0].bits, &up[0].bits, 3 * n, &out[0].bits);
    for (size_t i = 0; i < out.size(); ++i) {
        const double g = to_float(gate[i]);
        const double want = g / (1.0 + std::exp(-g)) * to_float(up[i]);
        if (std::isnan(want)) {
            EXPECT_TRUE(std::isnan(to_float(out[i])));
        } else {
            EXPECT_NEAR(to_float(out[i]), want, std::fabs(want) / 250.0 + 1e-30);
        }
    }
}

TEST(Activation, NormsMatchDouble) {
    OpContext context(Isa::kPortable);
    Random random(8);
    const int64_t m = 5;
    const int64_t n = 203;
    std::vector<float> residual = random.floats(m * n, 2.0F);
    const std::vector<float> before = residual;
    const std::vector<bf16> add = random.bf16s(m * n);
    const std::vector<float> weight = random.floats(n);
    std::vector<bf16> out(residual.size());
    add_rms_norm(context.exec,
                 {m, n, residual.data(), add.data(), weight.data(), 1e-6F, out.data()});
    for (int64_t i = 0; i < m; ++i) {
        double squares = 0.0;
        for (int64_t j = 0; j < n; ++j) {
            const auto at = static_cast<size_t>(i * n + j);
            ASSERT_EQ(residual[at], before[at] + to_float(add[at]));
            squares += static_cast<double>(residual[at]) * residual[at];
        }
        for (int64_t j = 0; j < n; ++j) {
            const auto at = static_cast<size_t>(i * n + j);
            const double want =
                weight[static_cast<size_t>(j)] * residual[at] / std::sqrt(squares / n + 1e-6);
            ASSERT_NEAR(to_float(out[at]), want, std::fabs(want) / 255.0);
        }
    }
}

}  // namespace
}  // namespace dsa::gemm
