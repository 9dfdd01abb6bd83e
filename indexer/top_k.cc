// Exact top-k by radix selection: the k-th largest key is found digit by digit, then one scan keeps
// what is above it and the first of its equals. No sort; ascending positions come for free.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "indexer/indexer.h"

namespace dsa::indexer {
namespace {

// Larger float, larger key; NaN as -inf.
uint32_t order_key(float x) {
    if (std::isnan(x)) x = -INFINITY;
    const uint32_t u = std::bit_cast<uint32_t>(x);
    // -0 and +0 are equal scores.
    if (u == 0x80000000U) return 0x80000000U;
    return (u & 0x80000000U) != 0 ? ~u : u | 0x80000000U;
}

struct Threshold {
    uint32_t key;    // the k-th largest
    int64_t equals;  // how many of its equals belong to the k
};

// keys [n], k in 1 .. n.
Threshold kth_largest(const uint32_t* keys, int64_t n, int64_t k) {
    constexpr std::array<int, 3> kShifts = {21, 10, 0};
    constexpr std::array<int, 3> kBits = {11, 11, 10};
    uint32_t prefix = 0;
    uint32_t prefix_mask = 0;
    int64_t left = k;
    for (size_t pass = 0; pass < kShifts.size(); ++pass) {
        const int shift = kShifts[pass];
        const uint32_t digit_mask = (1U << kBits[pass]) - 1U;
        std::array<int32_t, 2048> count{};
        for (int64_t i = 0; i < n; ++i) {
            const uint32_t in = (keys[i] & prefix_mask) == prefix ? 1U : 0U;
            count[(keys[i] >> shift) & digit_mask] += static_cast<int32_t>(in);
        }
        uint32_t digit = digit_mask;
        while (count[digit] < left) left -= count[digit--];
        prefix |= digit << shift;
        prefix_mask |= digit_mask << shift;
    }
    return {prefix, left};
}

void top_k_row(const float* logits, int64_t n, int64_t k, uint32_t* keys, int32_t* indices) {
    for (int64_t i = 0; i < n; ++i) keys[i] = order_key(logits[i]);
    Threshold t = kth_largest(keys, n, k);
    int64_t found = 0;
    for (int64_t i = 0; i < n && found < k; ++i) {
        const bool equal = keys[i] == t.key && t.equals > 0;
        t.equals -= equal ? 1 : 0;
        indices[found] = static_cast<int32_t>(i);
        found += keys[i] > t.key || equal ? 1 : 0;
    }
}

}  // namespace

void top_k(Exec& exec, const TopKParams& p) {
    DSA_CHECK(p.k >= 1 && p.first_visible >= 1, "top_k: k ", p.k, ", first_visible ",
              p.first_visible, "; expected >= 1");
    const int64_t longest = p.first_visible + p.num_rows - 1;
    DSA_CHECK(p.ld >= longest, "top_k: row stride ", p.ld, ", expected at least ", longest);
    const Arena::Scope scope(exec.scratch);
    auto* keys = exec.scratch.alloc<uint32_t>(exec.pool.num_threads() * align_up(longest));
    exec.pool.parallel_for(p.num_rows, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t n = p.first_visible + row;
            const int64_t taken = std::min(n, p.k);
            int32_t* out = p.indices + row * p.k;
            if (n <= p.k) {
                for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int32_t>(i);
            } else {
                top_k_row(p.logits + row * p.ld, n, p.k, keys + thread * align_up(longest), out);
            }
            std::fill(out + taken, out + p.k, -1);
            p.lengths[row] = static_cast<int32_t>(taken);
        }
    });
}

}  // namespace dsa::indexer
