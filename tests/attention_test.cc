// MLA in the absorbed form against double precision; what it may read, and that its bits depend on
// the query alone.

#include "attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "testing/op_fixture.h"

namespace dsa::attention {
namespace {

using testing::OpContext;
using testing::OwnedWeight;
using testing::Random;
using testing::random_weight;
using testing::weight_at;

constexpr double kScale = 0.1;

struct Cache {
    std::vector<std::vector<uint8_t>> pages;
    std::vector<uint8_t*> table;
    explicit Cache(int64_t tokens) {
        pages.assign(static_cast<size_t>((tokens + 63) / 64),
                     std::vector<uint8_t>(static_cast<size_t>(kPageBytes), 0xff));
        for (auto& page : pages) table.push_back(page.data());
    }
    PageTable view() { return {table.data(), 0}; }
    uint8_t* record(int64_t position) {
        return view().page(position) + position % 64 * kRecordBytes;
    }
    // Value of the 576-wide key.
    double key(int64_t position, int64_t dim) {
        const uint8_t* r = record(position);
        if (dim >= kLatentDim) {
            bf16 x;
            std::memcpy(&x, r + 528 + (dim - kLatentDim) * 2, 2);
            return to_float(x);
        }
        float scale = 0.0F;
        std::memcpy(&scale, r + kLatentDim + dim / 128 * 4, 4);
        return round_bf16(to_float(e4m3{r[dim]}) * scale);
    }
};

void fill_record(Cache& cache, Random& random, int64_t position, bool power_of_two) {
    uint8_t* r = cache.record(position);
    const std::vector<e4m3> codes = random.e4m3s(kLatentDim, 60.0F);
    std::memcpy(r, codes.data(), kLatentDim);
    for (int64_t b = 0; b < 4; ++b) {
        const float scale = power_of_two ? std::ldexp(1.0F, static_cast<int>(-6 - random.below(4)))
                                         : 0.003F + std::fabs(random.normal(0.01F));
        std::memcpy(r + kLatentDim + 4 * b, &scale, 4);
    }
    const std::vector<bf16> rope = random.bf16s(kRopeDim);
    std::memcpy(r + 528, rope.data(), kRopeDim * 2);
}

// z of one head in double.
std::vector<double> attend(Cache& cache, const bf16* q, const std::vector<int32_t>& selected) {
    std::vector<double> logits;
    for (const int32_t s : selected) {
        double dot = 0.0;
        for (int64_t d = 0; d < kKeyDim; ++d) dot += to_float(q[d]) * cache.key(s, d);
        logits.push_back(dot * kScale);
    }
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (double& x : logits) sum += x = std::exp(x - top);
    std::vector<double> z(static_cast<size_t>(kLatentDim));
    for (size_t i = 0; i < selected.size(); ++i)
        for (int64_t d = 0; d < kLatentDim; ++d)
            z[static_cast<size_t>(d)] += logits[i] / sum * cache.key(selected[i], d);
    return z;
}

// Queries over random subsets of the positions they see.
struct Problem {
    int64_t tokens, heads, topk;
    Cache cache;
    std::vector<bf16> q;
    std::vector<int32_t> indices;
    std::vector<int32_t> lengths;

    Problem(Random& random, int64_t t, int64_t h, int64_t k, int64_t context, bool power_of_two)
        : tokens(t), heads(h), topk(k), cache(context) {
        q = random.bf16s(tokens * heads * kKeyDim, 0.3F);
        indices.assign(static_cast<size_t>(tokens * topk), -1);
        for (int64_t i = 0; i < tokens; ++i) {
            std::vector<int32_t> all(static_cast<size_t>(context));
            std::iota(all.begin(), all.end(), 0);
            for (size_t j = all.size() - 1; j > 0; --j)
                std::swap(all[j],
                          all[static_cast<size_t>(random.below(static_cast<int64_t>(j + 1)))]);
            const int64_t n = std::min(context, std::max<int64_t>(1, topk - 37 * i));
            std::sort(all.begin(), all.begin() + n);
            std::copy_n(all.begin(), n, indices.begin() + i * topk);
            lengths.push_back(static_cast<int32_t>(n));
            // Only what is selected exists; all other records are NaN.
            for (int64_t j = 0; j < n; ++j)
                fill_record(cache, random, all[static_cast<size_t>(j)], power_of_two);
        }
    }
    std::vector<int32_t> selected(int64_t token) const {
        const auto first = indices.begin() + token * topk;
        return {first, first + lengths[static_cast<size_t>(token)]};
    }
    std::vector<bf16> run(Isa isa, int threads, int64_t chunk) {
        OpContext context(isa, threads);
        std::vector<bf16> out(static_cast<size_t>(tokens * heads * kLatentDim));
        for (int64_t t = 0; t < tokens; t += chunk)
            sparse_mla(context.exec, {std::min(chunk, tokens - t), heads,
                                      q.data() + t * heads * kKeyDim, indices.data() + t * topk,
                                      topk, lengths.data() + t, static_cast<float>(kScale),
                                      cache.view(), out.data() + t * heads * kLatentDim});
        return out;
    }
};

class AttentionIsa : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, AttentionIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });

TEST_P(AttentionIsa, SparseMlaMatchesDoubleAndReadsOnlySelectedRecords) {
    Random random(1);
    for (const bool power_of_two : {true, false}) {
        for (const int64_t heads : {1, 3, 4, 8, 13}) {
            for (const int64_t topk : {1, 5, 64, 130, 400}) {
                Problem p(random, 3, heads, topk, 2 * topk + 10, power_of_two);
                const std::vector<bf16> out = p.run(GetParam(), 2, 3);
                for (int64_t t = 0; t < p.tokens; ++t) {
                    const int64_t h = random.below(heads);
                    const auto at = static_cast<size_t>((t * heads + h) * kLatentDim);
                    const std::vector<double> z =
                        attend(p.cache, p.q.data() + (t * heads + h) * kKeyDim, p.selected(t));
                    double error = 0.0;
                    double norm = 0.0;
                    for (size_t d = 0; d < z.size(); ++d) {
                        error += std::pow(to_float(out[at + d]) - z[d], 2.0);
                        norm += z[d] * z[d];
                    }
                    // bf16 probabilities and output: a few 2^-9.
                    ASSERT_LT(std::sqrt(error / norm), 0.006) << heads << " heads, topk " << topk;
                }
            }
        }
    }
}

TEST_P(AttentionIsa, QueriesHaveTheSameBitsWhateverTheirCompanyAndThreads) {
    Random random(2);
    Problem p(random, 9, 5, 700, 1500, true);
    const std::vector<bf16> whole = p.run(GetParam(), 2, p.tokens);
    for (const int threads : {1, 2, 3, 8})
        for (const int64_t chunk : {1, 2, 9}) {
            const std::vector<bf16> out = p.run(GetParam(), threads, chunk);
            ASSERT_EQ(std::memcmp(out.data(), whole.data(), out.size() * 2), 0)
                << threads << " threads, " << chunk << " queries at a time";
        }
}

TEST_P(AttentionIsa, NoQueriesAreNoWork) {
    Random random(4);
    Problem p(random, 1, 4, 64, 100, true);
    std::vector<bf16> out(static_cast<size_t>(p.heads * kLatentDim), to_bf16(3.0F));
    for (const int threads : {1, 2}) {
        OpContext context(GetParam(), threads);
        sparse_mla(context.exec, {0, p.heads, p.q.data(), p.indices.data(), p.topk, nullptr,
                                  static_cast<float>(kScale), p.cache.view(), out.data()});
    }
    for (const bf16 x : out) ASSERT_EQ(to_float(x), 3.0F);
}

TEST_P(AttentionIsa, ANanThatIsSelectedShows) {
    Random random(3);
    Problem p(random, 1, 4, 64, 100, true);
    p.cache.record(p.indices[10])[7] = 0x7f;
    const std::vector<bf16> out = p.run(GetParam(), 1, 1);
    EXPECT_TRUE(std::isnan(to_float(out[7])));
}

TEST_P(AttentionIsa, AbsorbedFormEqualsTheExpandedOne) {
    // u . c == q . (W_UK c) and W_UV z for random weights, through the ops, in double otherwise.
    OpContext context(GetParam());
    Random random(4);
    const int64_t heads = 3;
    const int64_t tokens = 5;
    const int64_t position = 11;
    const RopeTable rope(64, 10000.0, {}, 100);
    const OwnedWeight kv_b = random_weight(random, DType::kE4M3, heads * 256, 512);
    const std::vector<bf16> q = random.bf16s(tokens * heads * 192);
    std::vector<bf16> absorbed(static_cast<size_t>(tokens * heads * kKeyDim));
    absorb_queries(context.exec,
                   {tokens, heads, position, q.data(), kv_b.view, &rope, absorbed.data()});
    const std::vector<float> c = random.floats(512);
    for (int64_t i = 0; i < tokens * heads; ++i) {
        const int64_t h = i % heads;
        double through_u = 0.0;
        double expanded = 0.0;
        double magnitude = 0.0;
        for (int64_t d = 0; d < 512; ++d)
            through_u += to_float(absorbed[static_cast<size_t>(i * kKeyDim + d)]) *
                         c[static_cast<size_t>(d)];
        for (int64_t r = 0; r < 128; ++r) {
            double k = 0.0;
            for (int64_t d = 0; d < 512; ++d)
                k += weight_at(kv_b.view, h * 256 + r, d) * c[static_cast<size_t>(d)];
            const double x = k * to_float(q[static_cast<size_t>(i * 192 + r)]);
            expanded += x;
            magnitude += std::fabs(x);
        }
        EXPECT_NEAR(through_u, expanded, magnitude * 0.02);
        std::vector<float> r(64);
        for (size_t d = 0; d < 64; ++d) r[d] = to_float(q[static_cast<size_t>(i * 192 + 128) + d]);
        apply_rope(rope, RopePairing::kInterleaved, position + i / heads, r.data());
        for (size_t d = 0; d < 64; ++d)
            ASSERT_EQ(absorbed[static_cast<size_t>(i * kKeyDim + 512) + d].bits,
                      to_bf16(r[d]).bits);
    }
}

TEST(Attention, StoredRecordsMatchDouble) {
    OpContext context(Isa::kPortable);
    Random random(5);
    const RopeTable rope(64, 10000.0, {}, 200);
    const int64_t position = 62;
    const int64_t n = 5;
    const int64_t ld = 600;
    const std::vector<bf16> kv = random.bf16s(n * ld);
    const std::vector<float> weight = random.floats(512);
    for (const auto format : {gemm::ScaleFormat::kUe8m0, gemm::ScaleFormat::kPlain}) {
        Cache cache(200);
        store_kv(context.exec,
                 {n, position, kv.data(), ld, weight.data(), 1e-6F, &rope, format, cache.view()});
        for (int64_t t = 0; t < n; ++t) {
            const bf16* x = kv.data() + t * ld;
            double squares = 0.0;
            for (int64_t i = 0; i < 512; ++i) squares += to_float(x[i]) * to_float(x[i]);
            double error = 0.0;
            double norm = 0.0;
            for (int64_t i = 0; i < 512; ++i) {
                const double want = weight[static_cast<size_t>(i)] * to_float(x[i]) /
                                    std::sqrt(squares / 512 + 1e-6);
                error += std::pow(cache.key(position + t, i) - want, 2.0);
                norm += want * want;
            }
            EXPECT_LT(std::sqrt(error / norm), 0.035);
            std::vector<float> r(64);
            for (size_t d = 0; d < 64; ++d) r[d] = to_float(x[512 + d]);
            apply_rope(rope, RopePairing::kInterleaved, position + t, r.data());
            for (int64_t d = 0; d < 64; ++d)
                ASSERT_EQ(cache.key(position + t, 512 + d), round_bf16(r[static_cast<size_t>(d)]));
        }
        EXPECT_EQ(cache.record(position - 1)[0], 0xff);
        EXPECT_EQ(cache.record(position + n)[0], 0xff);
    }
}

}  // namespace
}  // namespace dsa::attention
