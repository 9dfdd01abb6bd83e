#include "gemm/cuda/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "dsa/error.h"

namespace dsa::gemm::cuda {
namespace {

// Of an H100 under load: clock, what a tensor core does in a clock (products of a multiprocessor),
// and bytes that come from memory and from L2.
constexpr double kClocksPerUs = 1600.0;
constexpr double kProductsPerClock = 4096.0;
constexpr double kBytesPerUs = 2.6e6;
constexpr double kL2BytesPerUs = 9.0e6;
constexpr double kLaunchUs = 3.0;
constexpr double kSharedBytesPerClock = 137.0;  // of a multiprocessor's shared memory, fitted
constexpr int kFewRows = 128;                   // of a group: memory bounds
constexpr double kFillClocks = 2500.0;   // from tile to tile with few rows: its latency shows
constexpr double kTileClocks = 400.0;    // with more: until the next tile's first product is done,
constexpr double kWaveClocks = 800.0;    // and staging each 64 rows of a warpgroup
constexpr double kDirectClocks = 250.0;  // more if they are stored by those who multiply
constexpr double kChainClocks = 250.0;   // at least, from a stage's first product to its promotion
constexpr double kStageClocks = 40.0;    // between a stage's products and the next one's
constexpr double kPartsClocks = 3000.0;  // exchanging the sums of a tile, filling the pipeline anew
constexpr double kAsGood = 1.05;         // the model is not more exact than that
// Tiles are taken in turn where there are few (which of the blocks that end at the same time gets
// another one is then better not left to chance), or where taking one takes long beside its k.
constexpr double kFewRounds = 3.0;
constexpr int kFewStagesOfTile = 8;
// Where a weight comes from memory for no more than kFewReads tiles, a ring of fewer stages waits.
constexpr int kFewReads = 4;
constexpr int kStreamStages = 4;
constexpr double kStreamWaits = 0.07;
constexpr double kRereading = 0.15;  // few rows: blocks that wait for the same lines of a weight
constexpr int kSplitRows = 64;       // of the weight, a block, where decode_split counts blocks

int64_t rows_of_group(const PlanRequest& r) {
    if (r.groups == Groups::kDense) return r.m;
    if (r.expected_rows > 0) return r.expected_rows;
    return r.groups == Groups::kMasked ? r.m : std::max<int64_t>(1, ceil_div(r.m, r.num_groups));
}

// Clocks of one stage (128 of k). A row of an operand is 128 bytes of shared memory: the copy
// engine writes both sides once, and each product of 64 rows of side M reads them and side N.
double stage_clocks(const KernelConfig& c) {
    const double multiply =
        static_cast<double>(kBlockK) * c.side_m() * c.side_n() / kProductsPerClock;
    const double rows = c.side_m() + c.side_n() + c.side_m() / 64.0 * (64 + c.side_n());
    const double shared = rows * kBlockK / kSharedBytesPerClock;
    // With one product of 64 rows a stage nothing of a warpgroup's own is under way meanwhile.
    return std::max({multiply, shared, kChainClocks}) +
           kStageClocks * (c.waves() == 1 && c.side_n() > 128 ? 2 : 1);
}

int split_of(const PlanRequest& r) {
    const bool splits = r.groups == Groups::kDense && r.decode_family;
    return splits ? decode_split(r.n, r.k, r.multiprocessors) : 1;
}

bool serves(const PlanRequest& r, const KernelConfig& c) {
    return c.groups == r.groups && c.f32_out == r.f32_out && c.split_k == split_of(r);
}

Plan estimate(const PlanRequest& r, const KernelConfig& c) {
    const int64_t rows = rows_of_group(r);
    const int64_t k_blocks = ceil_div(r.k, kBlockK);
    Plan plan;
    plan.config = c;
    plan.weight_reads = ceil_div(rows, c.tile_m);
    const int64_t tiles = r.num_groups * plan.weight_reads * ceil_div(r.n, c.tile_n) * c.split_k;
    plan.waves = static_cast<double>(tiles) / r.multiprocessors;
    plan.dynamic = c.dynamic() && plan.waves > kFewRounds && k_blocks >= kFewStagesOfTile;
    const double rounds = std::ceil(plan.waves);
    const double waits =
        c.stages() < kStreamStages && plan.weight_reads <= kFewReads ? kStreamWaits : 0.0;
    const double stores = c.waves() * (c.direct ? kWaveClocks + kDirectClocks : kWaveClocks);
    const double clocks =
        static_cast<double>(ceil_div(k_blocks, c.split_k)) * stage_clocks(c) * (1.0 + waits) +
        (rows <= kFewRows ? kFillClocks : kTileClocks + stores) +
        (c.split_k > 1 ? kPartsClocks : 0.0);
    plan.multiply_us = rounds * clocks / kClocksPerUs;
    if (rows <= kFewRows)
        plan.multiply_us *= 1.0 + kRereading * static_cast<double>(plan.weight_reads - 1);
    const int64_t bytes =
        r.num_groups * (rows * r.k + r.n * r.k + rows * r.n * (r.f32_out ? 4 : 2));
    const double from_l2 = static_cast<double>(
        tiles * (c.tile_n + std::min<int64_t>(rows, c.tile_m)) * ceil_div(r.k, c.split_k));
    // In a last round with few tiles few blocks load; a tenth of the time is not noticed.
    const double idle =
        plan.waves > 1.0 ? std::max((rounds - plan.waves) / rounds - 0.1, 0.0) : 0.0;
    plan.memory_us = std::max(static_cast<double>(bytes) / kBytesPerUs * (1.0 + 0.25 * idle),
                              from_l2 / kL2BytesPerUs);
    plan.band = std::max(1, (r.k > 4096 ? 2048 : 4096) / c.tile_m);  // A's rows stay in L2
    return plan;
}

// Of two that take about as long: fewer reads of the weight, then smaller tiles.
bool smaller(const Plan& a, const Plan& b) {
    if (a.weight_reads != b.weight_reads) return a.weight_reads < b.weight_reads;
    return a.config.tile_m * a.config.tile_n < b.config.tile_m * b.config.tile_n;
}

}  // namespace

double Plan::us() const {
    return kLaunchUs + std::max(multiply_us, memory_us);
}

int decode_split(int64_t n, int64_t k, int multiprocessors) {
    const int64_t tiles = ceil_div(n, kSplitRows), k_blocks = ceil_div(k, kBlockK);
    // A cluster lies within one part of the device, where clusters of four leave some blocks idle.
    const auto fit = [&](int64_t split) {
        return split * tiles <= (split == 2 ? multiprocessors : multiprocessors * 10 / 11);
    };
    int split = 1;
    while (split < 8 && fit(2 * split) && 16 * split <= k_blocks) split *= 2;
    return split;
}

std::vector<KernelConfig> family_for(const PlanRequest& r) {
    struct Tile {
        bool swapped;
        int m, n;
        bool direct = false;
    };
    constexpr Tile kTiles[] = {{true, 8, 64},     {true, 16, 64},    {true, 32, 64},
                               {true, 8, 128},    {true, 16, 128},   {true, 32, 128},
                               {false, 64, 32},   {false, 64, 64},   {false, 64, 128},
                               {false, 128, 32},  {false, 128, 64},  {false, 128, 128},
                               {false, 128, 192}, {false, 256, 128}, {false, 256, 128, true}};
    std::vector<KernelConfig> family;
    for (const Tile& tile : kTiles) {
        KernelConfig c;
        c.groups = r.groups;
        c.swapped = tile.swapped;
        c.tile_m = tile.m;
        c.tile_n = tile.n;
        c.split_k = split_of(r);
        c.math_groups = c.side_m() == 64 ? 1 : 2;
        c.f32_out = r.f32_out;
        c.direct = tile.direct;
        if (c.direct && c.f32_out) continue;  // is direct anyway
        if (c.split_k == 1 || tile.n <= 64) family.push_back(c);
    }
    return family;
}

Plan choose_plan(const PlanRequest& r, std::span<const BuiltKernel> kernels, bool may_compile) {
    std::vector<Plan> plans;
    for (const BuiltKernel& kernel : kernels)
        if (serves(r, kernel.config)) plans.push_back(estimate(r, kernel.config));
    const size_t built = plans.size();
    if (may_compile)
        for (const KernelConfig& config : family_for(r)) {
            if (std::any_of(plans.begin(), plans.end(),
                            [&](const Plan& plan) { return plan.config == config; }))
                continue;
            plans.push_back(estimate(r, config));
            plans.back().built = false;
        }
    if (plans.empty())
        throw_error(ErrorCode::kInternal, "fp8_gemm_nt: no kernel for m ", r.m, ", n ", r.n, ", k ",
                    r.k);
    const auto least = [](const std::vector<Plan>& of, size_t count) {
        double us = std::numeric_limits<double>::infinity();
        for (size_t i = 0; i < count; ++i) us = std::min(us, of[i].us());
        return us;
    };
    const double best = least(plans, plans.size());
    if (least(plans, built) <= kAsGood * best) plans.resize(built);
    // With many rows the model knows how many rounds there are, which decides.
    const double good = rows_of_group(r) > kFewRows ? least(plans, plans.size()) : kAsGood * best;
    std::erase_if(plans, [&](const Plan& plan) { return plan.us() > good; });
    return *std::min_element(plans.begin(), plans.end(), smaller);
}

std::string describe(const KernelConfig& c) {
    char text[96];
    std::snprintf(text, sizeof text, "%s %dx%d%s split %d", c.swapped ? "swapped" : "normal",
                  c.tile_m, c.tile_n, c.direct ? " direct" : "", c.split_k);
    return text;
}

std::string explain(const PlanRequest& r, const Plan& plan) {
    char text[256];
    std::snprintf(text, sizeof text,
                  "m %lld n %lld k %lld groups %lld: %s, %d stages; %.2f waves, "
                  "multiply %.1f us, memory %.1f us: %s bounds%s",
                  static_cast<long long>(r.m), static_cast<long long>(r.n),
                  static_cast<long long>(r.k), static_cast<long long>(r.num_groups),
                  describe(plan.config).c_str(), plan.config.stages(), plan.waves, plan.multiply_us,
                  plan.memory_us, plan.multiply_us > plan.memory_us ? "multiplying" : "memory",
                  plan.built ? "" : "; compiled at run time");
    return text;
}

}  // namespace dsa::gemm::cuda
