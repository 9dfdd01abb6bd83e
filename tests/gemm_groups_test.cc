// Grouped products, layers, and batched slices of one weight: equal to the dense products of their
// rows, or to double precision. And the split of work that they share.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "gemm/cpu/select.h"
#include "gemm/gemm.h"
#include "gemm/schedule.h"
#include "testing/gemm_operands.h"

namespace dsa::gemm {
namespace {

using testing::expect_near;
using testing::OpContext;
using testing::OwnedWeight;
using testing::Random;
using testing::random_rows;
using testing::random_weight;
using testing::Rows;
using testing::run_gemm;
using testing::weight_at;

// Tasks of any sizes and costs, by any number of threads: each unit once.
TEST(Schedule, RunsEveryUnitOnce) {
    Random random(12);
    for (const int threads : {1, 2, 3, 5}) {
        OpContext context(Isa::kPortable, threads);
        for (int round = 0; round < 200; ++round) {
            const int64_t most = int64_t{1} << random.below(9);
            std::vector<TaskSize> sizes(static_cast<size_t>(1 + random.below(6)));
            for (TaskSize& s : sizes) s = {random.below(most + 1), 1 + random.below(1000)};
            std::vector<std::vector<std::atomic<int>>> runs;
            runs.reserve(sizes.size());
            for (const TaskSize& s : sizes) runs.emplace_back(static_cast<size_t>(s.units));
            for_each_range(
                context.exec, static_cast<int64_t>(sizes.size()),
                [&](int64_t i) { return sizes[static_cast<size_t>(i)]; },
                [&](int64_t task, int64_t first, int64_t last, int thread) {
                    EXPECT_LT(thread, threads);
                    for (int64_t unit = first; unit < last; ++unit)
                        runs[static_cast<size_t>(task)][static_cast<size_t>(unit)] += 1;
                });
            for (const auto& task : runs)
                for (const auto& count : task) ASSERT_EQ(count, 1) << threads << " threads";
        }
    }
}

class GroupsIsa : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, GroupsIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });

TEST_P(GroupsIsa, GroupedEqualsDense) {
    OpContext context(GetParam());
    Random random(10);
    const int64_t k = 272;
    const int64_t n = 72;
    const int32_t counts[] = {3, 0, 1, 16, 0};
    const int32_t offsets[] = {0, 3, 3, 4, 20, 20};
    const int64_t max_m = 17;
    std::vector<OwnedWeight> weights(5);
    std::vector<const Weight*> pointers(5);
    for (size_t g = 0; g < 5; ++g) {
        weights[g] = random_weight(random, DType::kE4M3, n, k);
        pointers[g] = &weights[g].view;
    }
    for (const DType type : {DType::kBF16, DType::kE4M3, DType::kI8}) {
        const Rows a = random_rows(random, type, 5 * max_m, k);
        std::vector<float> contiguous(static_cast<size_t>(20 * n), -7.0F);
        std::vector<float> masked(static_cast<size_t>(5 * max_m * n), -7.0F);
        GroupedContiguousParams c;
        c.num_groups = 5;
        c.a = a.view;
        c.b = pointers.data();
        c.d = {contiguous.data(), DType::kF32, n};
        c.offsets = offsets;
        GroupedMaskedParams p;
        static_cast<GroupedGemm&>(p) = c;
        p.d.data = masked.data();
        p.max_m = max_m;
        p.masked_m = counts;
        if (type == DType::kBF16) {
            m_grouped_bf16_fp8_gemm_nt_contiguous(context.exec, c);
            m_grouped_bf16_fp8_gemm_nt_masked(context.exec, p);
        } else if (type == DType::kE4M3) {
            m_grouped_fp8_gemm_nt_contiguous(context.exec, c);
            m_grouped_fp8_gemm_nt_masked(context.exec, p);
        } else {
            m_grouped_int8_fp8_gemm_nt_contiguous(context.exec, c);
            m_grouped_int8_fp8_gemm_nt_masked(context.exec, p);
        }
        const auto dense = [&](int64_t g, int64_t first) {
            std::vector<float> d(static_cast<size_t>(counts[g] * n));
            Activations rows = a.view;
            rows.data = static_cast<const uint8_t*>(rows.data) + first * k * size_of(type);
            if (rows.scale != nullptr) rows.scale += first * rows.scale_stride_m;
            if (counts[g] > 0)
                run_gemm(context.exec, {counts[g],
                                        rows,
                                        *pointers[static_cast<size_t>(g)],
                                        {d.data(), DType::kF32, n}});
            return d;
        };
        for (int64_t g = 0; g < 5; ++g) {
            const std::vector<float> by_offset = dense(g, offsets[g]);
            const std::vector<float> by_mask = dense(g, g * max_m);
            EXPECT_TRUE(std::equal(by_offset.begin(), by_offset.end(),
                                   contiguous.begin() + offsets[g] * n));
            EXPECT_TRUE(std::equal(by_mask.begin(), by_mask.end(), masked.begin() + g * max_m * n));
            for (int64_t i = counts[g] * n; i < max_m * n; ++i)  // rows of no group
                ASSERT_EQ(masked[static_cast<size_t>(g * max_m * n + i)], -7.0F);
        }
    }
}

// The dense product of a layer's rows, made ready by hand.
std::vector<bf16> dense_layer(Exec& exec, int64_t m, const bf16* x, const Weight& b,
                              Precision precision) {
    const int64_t blocks = num_blocks(b.k);
    std::vector<bf16> d(static_cast<size_t>(m * b.n));
    std::vector<e4m3> codes(static_cast<size_t>(m * b.k));
    std::vector<float> scale(static_cast<size_t>(m * blocks));
    Activations a{x, DType::kBF16, b.k, nullptr, 0, 0};
    if (b.is_fp8() && precision == Precision::kFp8) {
        quantize_1x128(exec, {m, b.k, x, b.k, ScaleFormat::kPlain, codes.data(), scale.data()});
        a = {codes.data(), DType::kE4M3, b.k, scale.data(), blocks, 1};
    } else if (b.is_fp8() && precision == Precision::kInt8) {
        auto* q = reinterpret_cast<int8_t*>(codes.data());
        quantize_1x128_int8(exec, {m, b.k, x, b.k, q, scale.data()});
        a = {codes.data(), DType::kI8, b.k, scale.data(), blocks, 1};
    }
    run_gemm(exec, {m, a, b, {d.data(), DType::kBF16, b.n}});
    return d;
}

TEST_P(GroupsIsa, LayersAndGroupsEqualTheDenseProducts) {
    OpContext context(GetParam());
    Random random(4);
    const int64_t k = 192;
    const int64_t n = 80;
    std::vector<OwnedWeight> weights;
    for (const DType dtype : {DType::kE4M3, DType::kE4M3, DType::kBF16, DType::kE4M3})
        weights.push_back(random_weight(random, dtype, n, k));
    std::vector<const Weight*> pointers(weights.size());
    for (size_t g = 0; g < weights.size(); ++g) pointers[g] = &weights[g].view;
    // One empty group and one of a single row; then groups of one row at most, as in decode.
    const std::vector<int32_t> all_offsets[] = {{0, 3, 3, 4, 20}, {0, 1, 1, 2, 3}};
    const std::vector<bf16> x = random.bf16s(20 * k);
    const std::vector<bf16> up = random.bf16s(20 * k);
    std::vector<bf16> product(x.size());
    cpu::kernels_for(GetParam()).silu_mul(&x[0].bits, &up[0].bits, 20 * k, &product[0].bits);

    for (const Precision precision : {Precision::kBf16, Precision::kFp8, Precision::kInt8}) {
        for (const bool swiglu : {false, true}) {
            for (const std::vector<int32_t>& offsets : all_offsets) {
                const LinearInput in{x.data(), k, swiglu ? up.data() : nullptr};
                std::vector<bf16> grouped(static_cast<size_t>(offsets[4] * n));
                const GroupedOutput out[] = {{pointers.data(), {grouped.data(), DType::kBF16, n}}};
                m_grouped_linear_contiguous(
                    context.exec, {4, offsets.data(), in, precision, ScaleFormat::kPlain, out});
                for (size_t g = 0; g < 4; ++g) {
                    const int64_t first = offsets[g];
                    const int64_t rows = offsets[g + 1] - first;
                    if (rows == 0) continue;
                    const Weight& b = weights[g].view;
                    const std::vector<bf16> dense =
                        dense_layer(context.exec, rows, (swiglu ? product : x).data() + first * k,
                                    b, precision);
                    std::vector<bf16> layer(dense.size());
                    const LinearOutput one[] = {{&b, {layer.data(), DType::kBF16, n}}};
                    LinearInput part = in;
                    part.x += first * k;
                    if (swiglu) part.up += first * k;
                    linear(context.exec, {rows, part, precision, ScaleFormat::kPlain, one});
                    EXPECT_EQ(std::memcmp(dense.data(), layer.data(), dense.size() * 2), 0)
                        << "group " << g;
                    EXPECT_EQ(
                        std::memcmp(dense.data(), grouped.data() + first * n, dense.size() * 2), 0)
                        << "group " << g;
                }
            }
        }
    }
}

TEST_P(GroupsIsa, BatchedSlicesHaveTheSameBitsWhateverM) {
    OpContext context(GetParam());
    Random random(6);
    const int64_t m = 17;
    const int64_t rows_with_nans = 7;
    for (const int64_t n : {40, 200, 576})
        for (const DType dtype : {DType::kE4M3, DType::kBF16}) {
            OwnedWeight b = random_weight(random, dtype, 128, n, 8);
            std::vector<bf16> a = random.bf16s(m * 128);
            for (int64_t i = 0; i < 100; ++i) {  // of several NaNs one is passed on
                a[static_cast<size_t>(random.below(rows_with_nans * 128))].bits =
                    static_cast<uint16_t>(0x7fc0 + 0x8000 * random.below(2) + random.below(64));
                // In a quarter of the columns; the last byte of a value.
                const int64_t at = random.below(128) * n + random.below(n / 4);
                b.bytes[static_cast<size_t>(8 + (at + 1) * size_of(dtype) - 1)] =
                    static_cast<uint8_t>(0x7f + 0x80 * random.below(2));
            }
            const auto run = [&](int64_t step) {
                std::vector<bf16> d(static_cast<size_t>(m * n));
                for (int64_t row = 0; row < m; row += step)
                    batched_gemm_nn(context.exec,
                                    {1, std::min(step, m - row), n, 128, a.data() + row * 128, 128,
                                     128, b.view, 0, 0, d.data() + row * n, n, n});
                return d;
            };
            const std::vector<bf16> whole = run(m);
            const auto numbers = std::count_if(whole.begin(), whole.end(),
                                               [](bf16 x) { return !std::isnan(to_float(x)); });
            ASSERT_GE(numbers, (m - rows_with_nans) * n / 2);
            for (const int64_t step : {1, 3, 5, 13})
                EXPECT_EQ(std::memcmp(whole.data(), run(step).data(), whole.size() * 2), 0)
                    << n << " columns, " << step << " rows at a time";
        }
}

TEST_P(GroupsIsa, BatchedSlicesMatchDouble) {
    OpContext context(GetParam());
    Random random(5);
    const int64_t batches = 3;
    for (const DType dtype : {DType::kE4M3, DType::kBF16}) {
        const OwnedWeight b = random_weight(random, dtype, batches * 256, 512);
        for (const int64_t m : {1, 3, 6, 130}) {
            // nn: [m, 128] x rows 0 .. 127 of each 256; nt: [m, 512] x rows 128 .. 255.
            const std::vector<bf16> q = random.bf16s(m * batches * 192);
            const std::vector<bf16> z = random.bf16s(m * batches * 512);
            std::vector<bf16> u(static_cast<size_t>(m * batches * 576));
            std::vector<bf16> o(static_cast<size_t>(m * batches * 128));
            batched_gemm_nn(context.exec, {batches, m, 512, 128, q.data(), batches * 192, 192,
                                           b.view, 0, 256, u.data(), batches * 576, 576});
            batched_gemm_nt(context.exec, {batches, m, 128, 512, z.data(), batches * 512, 512,
                                           b.view, 128, 256, o.data(), batches * 128, 128});
            for (int64_t check = 0; check < 400; ++check) {
                const int64_t i = random.below(m);
                const int64_t h = random.below(batches);
                double want = 0.0;
                double magnitude = 0.0;
                const int64_t c = random.below(512);
                for (int64_t k = 0; k < 128; ++k) {
                    const double x = to_float(q[static_cast<size_t>((i * batches + h) * 192 + k)]) *
                                     weight_at(b.view, h * 256 + k, c);
                    want += x;
                    magnitude += std::fabs(x);
                }
                expect_near(to_float(u[static_cast<size_t>((i * batches + h) * 576 + c)]), want,
                            magnitude, 128, true);
                want = magnitude = 0.0;
                const int64_t r = random.below(128);
                for (int64_t k = 0; k < 512; ++k) {
                    const double x = to_float(z[static_cast<size_t>((i * batches + h) * 512 + k)]) *
                                     weight_at(b.view, h * 256 + 128 + r, k);
                    want += x;
                    magnitude += std::fabs(x);
                }
                expect_near(to_float(o[static_cast<size_t>((i * batches + h) * 128 + r)]), want,
                            magnitude, 512, true);
            }
        }
    }
}

}  // namespace
}  // namespace dsa::gemm
