#include "gemm/cuda/plan.h"

#include <algorithm>
#include <cstdio>

#include "dsa/error.h"

namespace dsa::gemm::cuda {
namespace {

// Of an H100 under load: clock, what a tensor core does in a clock (products of a multiprocessor),
// and reads of memory.
constexpr double kClocksPerUs = 1600.0;
constexpr double kProductsPerClock = 4096.0;
constexpr double kBytesPerUs = 2.6e6;
constexpr double kLaunchUs = 3.0;
constexpr double kTileClocks = 2500.0;  // filling the pipeline and storing a tile
constexpr int kDecodeRows = 64;         // of the weight, a block of the decode family

int64_t rows_of_group(const PlanRequest& r) {
    if (r.groups == Groups::kDense) return r.m;
    if (r.expected_rows > 0) return r.expected_rows;
    return r.groups == Groups::kMasked ? r.m : std::max<int64_t>(1, ceil_div(r.m, r.num_groups));
}

// Share of the tensor cores' rate that tiles of this shape reach (measured, many tiles, k = 7168).
double efficiency(const KernelConfig& c) {
    if (c.swapped) return 0.5;
    if (c.tile_m == 256) return 0.85;
    return c.tile_n == 192 ? 0.80 : 0.65;
}

bool serves(const PlanRequest& r, const KernelConfig& c) {
    if (c.groups != r.groups || c.f32_out != r.f32_out) return false;
    if (r.groups == Groups::kDense) {
        if (c.swapped != r.decode_family) return false;
        if (!r.decode_family) return true;
        return c.tile_m >= r.m && c.tile_n == kDecodeRows &&
               c.split_k == decode_split(r.n, r.k, r.multiprocessors);
    }
    return true;
}

Plan estimate(const PlanRequest& r, const KernelConfig& c) {
    const int64_t rows = rows_of_group(r);
    const int64_t k_blocks = ceil_div(r.k, kBlockK);
    const int64_t tiles = r.num_groups * ceil_div(rows, c.tile_m * c.cluster_m) * c.cluster_m *
                          ceil_div(r.n, c.tile_n * c.cluster_n) * c.cluster_n * c.split_k;
    Plan plan;
    plan.config = c;
    plan.weight_reads = ceil_div(rows, c.tile_m * c.cluster_m);
    plan.waves = static_cast<double>(tiles) / r.multiprocessors;
    const double clocks = static_cast<double>(ceil_div(k_blocks, c.split_k)) * kBlockK * c.tile_m *
                              c.tile_n / kProductsPerClock / efficiency(c) +
                          kTileClocks;
    plan.multiply_us =
        static_cast<double>(ceil_div(tiles, r.multiprocessors)) * clocks / kClocksPerUs;
    const int64_t bytes =
        r.num_groups * (rows * r.k + r.n * r.k + rows * r.n * (r.f32_out ? 4 : 2));
    plan.memory_us = static_cast<double>(bytes) / kBytesPerUs;
    plan.band = std::max(1, 2048 / (c.tile_m * c.cluster_m));
    return plan;
}

// Where memory bounds both: fewer reads of the weight, then smaller tiles.
bool better(const Plan& a, const Plan& b) {
    if (a.us() != b.us()) return a.us() < b.us();
    if (a.weight_reads != b.weight_reads) return a.weight_reads < b.weight_reads;
    return a.multiply_us < b.multiply_us;
}

}  // namespace

double Plan::us() const {
    return kLaunchUs + std::max(multiply_us, memory_us);
}

int decode_split(int64_t n, int64_t k, int multiprocessors) {
    const int64_t tiles = ceil_div(n, kDecodeRows), k_blocks = ceil_div(k, kBlockK);
    if (2 * tiles + tiles / 4 > multiprocessors) return 1;  // enough blocks to keep memory busy
    int split = 1;
    while (split < 8 && 2 * split * tiles <= multiprocessors && 16 * split <= k_blocks) split *= 2;
    return split;
}

Plan choose_plan(const PlanRequest& r, std::span<const BuiltKernel> kernels) {
    Plan best;
    bool found = false;
    for (const BuiltKernel& kernel : kernels) {
        if (!serves(r, kernel.config)) continue;
        const Plan plan = estimate(r, kernel.config);
        if (!found || better(plan, best)) best = plan;
        found = true;
    }
    if (!found)
        throw_error(ErrorCode::kInternal, "fp8_gemm_nt: no kernel for m ", r.m, ", n ", r.n, ", k ",
                    r.k);
    return best;
}

std::string explain(const PlanRequest& r, const Plan& plan) {
    const KernelConfig& c = plan.config;
    char text[256];
    std::snprintf(text, sizeof text,
                  "m %lld n %lld k %lld groups %lld: %s %dx%d, cluster %dx%d, split %d, %d stages; "
                  "%.2f waves, "
                  "multiply %.1f us, memory %.1f us: %s bounds",
                  static_cast<long long>(r.m), static_cast<long long>(r.n),
                  static_cast<long long>(r.k), static_cast<long long>(r.num_groups),
                  c.swapped ? "swapped" : "normal", c.tile_m, c.tile_n, c.cluster_m, c.cluster_n,
                  c.split_k, c.stages(), plan.waves, plan.multiply_us, plan.memory_us,
                  plan.multiply_us > plan.memory_us ? "multiplying" : "memory");
    return text;
}

}  // namespace dsa::gemm::cuda
