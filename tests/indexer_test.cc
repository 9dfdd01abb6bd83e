// The lightning indexer against double precision, and the selection against a sort.

#include "indexer/indexer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <complex>
#include <limits>
#include <numeric>

#include "testing/op_fixture.h"

namespace dsa::indexer {
namespace {

using testing::OpContext;
using testing::Random;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Cache {
    std::vector<std::vector<uint8_t>> pages;
    std::vector<uint8_t*> table;
    explicit Cache(int64_t tokens, int64_t offset = 64) : offset_(offset) {
        // 0xff: NaN codes and NaN scales wherever nothing was stored.
        pages.assign(static_cast<size_t>((tokens + 63) / 64),
                     std::vector<uint8_t>(static_cast<size_t>(kPageBytes + offset), 0xff));
        for (auto& page : pages) table.push_back(page.data());
    }
    PageTable view() { return {table.data(), offset_}; }
    float key(int64_t position, int64_t dim) {
        const uint8_t* page = view().page(position);
        float scale = 0.0F;
        std::memcpy(&scale, page + 64 * kHeadDim + position % 64 * 4, 4);
        return to_float(e4m3{page[position % 64 * kHeadDim + dim]}) * scale;
    }

  private:
    int64_t offset_;
};

// RoPE and Hadamard of one vector in double.
std::vector<double> rotated(const std::vector<double>& x, const RopeTable& rope,
                            RopePairing pairing, int64_t position) {
    std::vector<double> y = x;
    for (size_t i = 0; i < 32; ++i) {
        const size_t a = pairing == RopePairing::kHalfSplit ? i : 2 * i;
        const size_t b = pairing == RopePairing::kHalfSplit ? i + 32 : 2 * i + 1;
        const std::complex<double> turned =
            std::complex<double>(x[a], x[b]) *
            std::complex<double>(rope.cos(position)[i], rope.sin(position)[i]);
        y[a] = turned.real();
        y[b] = turned.imag();
    }
    std::vector<double> h(128, 0.0);
    for (size_t r = 0; r < 128; ++r)
        for (size_t c = 0; c < 128; ++c)
            h[r] += (std::popcount(r & c) % 2 == 0 ? y[c] : -y[c]) / std::sqrt(128.0);
    return h;
}

class IndexerIsa : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, IndexerIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });

TEST(Indexer, StoredKeysMatchDouble) {
    OpContext context(Isa::kPortable);
    Random random(1);
    const RopeTable rope(64, 10000.0, {}, 200);
    const int64_t position = 60;  // across a page boundary
    const int64_t n = 9;
    const int64_t ldk = 130;
    const std::vector<bf16> k = random.bf16s(n * ldk);
    const std::vector<float> weight = random.floats(128);
    const std::vector<float> bias = random.floats(128);
    for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
        for (const auto format : {gemm::ScaleFormat::kUe8m0, gemm::ScaleFormat::kPlain}) {
            Cache cache(200);
            store_keys(context.exec, {n, position, k.data(), ldk, weight.data(), bias.data(), &rope,
                                      pairing, format, cache.view()});
            for (int64_t t = 0; t < n; ++t) {
                std::vector<double> x(128);
                double mean = 0.0;
                for (size_t i = 0; i < 128; ++i) {
                    x[i] = to_float(k[static_cast<size_t>(t * ldk) + i]);
                    mean += x[i] / 128.0;
                }
                double variance = 0.0;
                for (const double v : x) variance += (v - mean) * (v - mean) / 128.0;
                for (size_t i = 0; i < 128; ++i)
                    x[i] = (x[i] - mean) / std::sqrt(variance + 1e-6) * weight[i] + bias[i];
                const std::vector<double> want = rotated(x, rope, pairing, position + t);
                double error = 0.0;
                double norm = 0.0;
                for (size_t i = 0; i < 128; ++i) {
                    const double got = cache.key(position + t, static_cast<int64_t>(i));
                    error += (got - want[i]) * (got - want[i]);
                    norm += want[i] * want[i];
                }
                ASSERT_LT(std::sqrt(error / norm), 0.035) << "token " << t;  // e4m3: 2^-4 / sqrt(3)
            }
            EXPECT_TRUE(std::isnan(cache.key(position - 1, 0)));
            EXPECT_TRUE(std::isnan(cache.key(position + n, 0)));
        }
    }
}

// Random codes and scales in the cache; NaN behind `tokens`.
void fill(Cache& cache, Random& random, int64_t tokens) {
    for (int64_t s = 0; s < tokens; ++s) {
        uint8_t* page = cache.view().page(s);
        const std::vector<e4m3> codes = random.e4m3s(128);
        std::memcpy(page + s % 64 * kHeadDim, codes.data(), 128);
        const float scale = 0.01F + std::fabs(random.normal(0.02F));
        std::memcpy(page + 64 * kHeadDim + s % 64 * 4, &scale, 4);
    }
}

TEST_P(IndexerIsa, LogitsMatchDouble) {
    Random random(2);
    for (const int64_t heads : {1, 5, 64}) {
        for (const int64_t rows : {1, 3, 33}) {
            const int64_t position = 150;
            Cache cache(position + rows);
            fill(cache, random, position + rows);
            const std::vector<e4m3> q = random.e4m3s(rows * heads * 128);
            const std::vector<float> w = random.floats(rows * heads, 0.001F);
            const int64_t ld = 256;
            std::vector<float> logits(static_cast<size_t>(rows * ld));
            OpContext context(GetParam());
            fp8_paged_mqa_logits(context.exec, {rows, heads, position, q.data(), w.data(),
                                                cache.view(), logits.data(), ld});
            for (int64_t r = 0; r < rows; ++r) {
                for (int64_t s = 0; s <= position + r; ++s) {
                    double want = 0.0;
                    double magnitude = 0.0;
                    for (int64_t h = 0; h < heads; ++h) {
                        double dot = 0.0;
                        double terms = 0.0;
                        for (int64_t d = 0; d < 128; ++d) {
                            const double x =
                                to_float(q[static_cast<size_t>((r * heads + h) * 128 + d)]) *
                                cache.key(s, d);
                            dot += x;
                            terms += std::fabs(x);
                        }
                        const double weight = w[static_cast<size_t>(r * heads + h)];
                        want += weight * std::max(0.0, dot);
                        magnitude += std::fabs(weight) * terms;
                    }
                    ASSERT_NEAR(logits[static_cast<size_t>(r * ld + s)], want, magnitude * 2e-6)
                        << "row " << r << " key " << s << " heads " << heads;
                }
            }
        }
    }
}

TEST_P(IndexerIsa, SelectionHasTheSameBitsWhateverTheChunkAndThreads) {
    Random random(3);
    const int64_t heads = 3;
    const int64_t tokens = 300;
    const int64_t topk = 50;
    Cache cache(tokens);
    fill(cache, random, tokens);
    const std::vector<e4m3> q = random.e4m3s(tokens * heads * 128);
    const std::vector<float> w = random.floats(tokens * heads);
    const auto run = [&](int64_t chunk, int threads) {
        OpContext context(GetParam(), threads);
        std::vector<int32_t> indices(static_cast<size_t>(tokens * topk));
        std::vector<int32_t> lengths(static_cast<size_t>(tokens));
        for (int64_t t = 0; t < tokens; t += chunk)
            select(context.exec, {std::min(chunk, tokens - t), heads, t, topk,
                                  q.data() + t * heads * 128, w.data() + t * heads, cache.view(),
                                  indices.data() + t * topk, lengths.data() + t});
        for (int64_t t = 0; t < tokens; ++t)
            EXPECT_EQ(lengths[static_cast<size_t>(t)], std::min(t + 1, topk));
        return indices;
    };
    const std::vector<int32_t> whole = run(tokens, 2);
    for (int64_t t = 0; t < topk; ++t)  // rows that see few keys take them all
        for (int64_t i = 0; i < topk; ++i)
            ASSERT_EQ(whole[static_cast<size_t>(t * topk + i)], i <= t ? i : -1);
    for (const int threads : {1, 2, 3})
        for (const int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{64}, tokens})
            ASSERT_EQ(run(chunk, threads), whole) << chunk << " tokens, " << threads << " threads";
}

std::vector<int32_t> by_sorting(const float* x, int64_t n, int64_t k) {
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto value = [&](int32_t i) { return std::isnan(x[i]) ? -kInf : x[i]; };
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return value(a) > value(b); });
    order.resize(static_cast<size_t>(std::min(n, k)));
    std::sort(order.begin(), order.end());
    return order;
}

TEST(TopK, MatchesASort) {
    OpContext context(Isa::kPortable, 3);
    Random random(4);
    for (const int kind : {0, 1, 2, 3, 4}) {
        for (const int64_t k : {1, 2, 31, 64, 300}) {
            const int64_t rows = 5;
            const int64_t first = 280;
            const int64_t ld = 320;
            std::vector<float> x(static_cast<size_t>(rows * ld), kInf);  // never to be looked at
            for (int64_t r = 0; r < rows; ++r) {
                for (int64_t i = 0; i < first + r; ++i) {
                    float v = random.normal();
                    if (kind == 1) v = static_cast<float>(random.below(4));  // many ties
                    if (kind == 2) v = random.below(3) == 0 ? kNan : -kInf;  // no number
                    if (kind == 3) v = random.below(2) == 0 ? 0.0F : -0.0F;  // equal zeros
                    if (kind == 4) v = 1.0F + static_cast<float>(random.below(3)) * 1.2e-7F;
                    x[static_cast<size_t>(r * ld + i)] = v;
                }
            }
            std::vector<int32_t> indices(static_cast<size_t>(rows * k));
            std::vector<int32_t> lengths(static_cast<size_t>(rows));
            top_k(context.exec, {rows, x.data(), ld, first, k, indices.data(), lengths.data()});
            for (int64_t r = 0; r < rows; ++r) {
                std::vector<int32_t> want = by_sorting(x.data() + r * ld, first + r, k);
                ASSERT_EQ(lengths[static_cast<size_t>(r)], static_cast<int32_t>(want.size()));
                want.resize(static_cast<size_t>(k), -1);
                const auto got = indices.begin() + r * k;
                ASSERT_TRUE(std::equal(want.begin(), want.end(), got))
                    << "kind " << kind << " k " << k;
            }
        }
    }
}

TEST(Indexer, QueriesAndKeysKeepTheirProducts) {
    // q . k after RoPE, Hadamard and quantisation, against double without Hadamard and
    // quantisation.
    OpContext context(Isa::kPortable);
    Random random(5);
    const RopeTable rope(64, 10000.0, {}, 100);
    const std::vector<bf16> q = random.bf16s(128);
    const float w = 0.7F;
    std::vector<e4m3> q8(128);
    float w8 = 0.0F;
    prepare_queries(context.exec, {1, 1, 42, q.data(), &w, &rope, RopePairing::kHalfSplit,
                                   gemm::ScaleFormat::kUe8m0, q8.data(), &w8});
    std::vector<double> x(128);
    for (size_t i = 0; i < 128; ++i) x[i] = to_float(q[i]);
    const std::vector<double> want = rotated(x, rope, RopePairing::kHalfSplit, 42);
    const double scale = w8 / (w * std::pow(128.0, -0.5));  // one head
    double error = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < 128; ++i) {
        error += std::pow(to_float(q8[i]) * scale - want[i], 2.0);
        norm += want[i] * want[i];
    }
    EXPECT_LT(std::sqrt(error / norm), 0.035);
}

}  // namespace
}  // namespace dsa::indexer
