#include "gemm/cuda/launch.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "dsa/error.h"
#include "gemm/cuda/built_kernels.h"
#include "gemm/cuda/issue_order.h"
#include "gemm/cuda/jit.h"

namespace dsa::gemm::cuda {
namespace {

// A kernel ready to run, and how many clusters of it the device holds.
struct Loaded {
    KernelConfig config;
    std::vector<unsigned char> cubin;  // if it is not one of the built ones, as it is
    device::Library library;
    device::Kernel kernel;
    int clusters = 0;
};

device::LaunchShape shape_of(const KernelConfig& c, int blocks) {
    return {blocks, c.threads(), c.split_k, c.shared_bytes()};
}

// Memory serves fewer requests at a time better: a ring is no longer than keeps so many bytes of
// the weight on their way to all blocks together (measured on H200: 12 stages instead of 8 cost 1
// to 4 %).
constexpr int64_t kWeightBytesUnderWay = 8'000'000;

// The same holds for L2: fetching two blocks of k of a row at a time is 1 to 4 % slower, except in
// rows of at least this k, where it is 1 to 2 % faster.
constexpr int64_t kLongRow = 16384;

int stages_of(const KernelConfig& c, int64_t blocks) {
    const int64_t bytes_of_stages = std::max<int64_t>(blocks, 1) * c.tile_n * kBlockK;
    const int64_t enough = kWeightBytesUnderWay / bytes_of_stages;
    return static_cast<int>(
        std::min<int64_t>(c.stages(), std::max<int64_t>(enough, kFewestStages)));
}

const unsigned char* find_built(const KernelConfig& config) {
    for (const BuiltKernel& built : built_kernels())
        if (built.config == config) return built.cubin;
    return nullptr;
}

const Loaded& load(const KernelConfig& config) {
    static std::mutex mutex;
    static std::vector<std::unique_ptr<Loaded>> loaded;
    const std::lock_guard lock(mutex);
    for (const auto& entry : loaded)
        if (entry->config == config) return *entry;
    auto fresh = std::make_unique<Loaded>();
    fresh->config = config;
    const unsigned char* cubin = find_built(config);
    if (cubin == nullptr) {
        fresh->cubin = compiled_kernel(config, kernel_cache_folder());
        cubin = fresh->cubin.data();
    }
    if (gains_by_issue_order(config)) {
        fresh->cubin = with_issue_order(cubin);
        cubin = fresh->cubin.data();
    }
    fresh->library = device::Library(cubin);
    fresh->kernel = fresh->library.kernel("fp8_gemm", config.shared_bytes());
    fresh->clusters = device::max_active_clusters(fresh->kernel, shape_of(config, config.split_k));
    return *loaded.emplace_back(std::move(fresh));
}

}  // namespace

void run(CudaExec& exec, const Launch& launch, const Problem& p) {
    const KernelConfig& c = launch.config;
    if (ceil_div(p.k, kBlockK) < c.split_k)
        throw_error(ErrorCode::kInternal, "fp8_gemm_nt: k ", p.k, " for ", c.split_k,
                    " blocks that share it");
    const Loaded& loaded = load(c);
    const int64_t rows = p.groups == Groups::kMasked ? p.num_groups * p.m : p.m;
    using device::BoxType;

    device::BoxParams a_box{p.a, BoxType::kByte, rows, p.k, p.lda, c.load_rows(), kBlockK};
    device::BoxParams b_box{p.b, BoxType::kByte, p.num_groups * p.n, p.k, p.k, c.tile_n, kBlockK};
    a_box.l2_fetches_two = b_box.l2_fetches_two = p.k / c.split_k >= kLongRow;
    device::TensorMap a_map = device::tensor_map(a_box);
    device::TensorMap b_map = device::tensor_map(b_box);
    device::TensorMap d_map{};
    if (c.stores_boxes())
        d_map = device::tensor_map({p.d, BoxType::kBFloat16, rows, p.n, p.ldd * 2, kBoxRows, 64});

    KernelArgs args;
    args.m = static_cast<int>(p.m);
    args.n = static_cast<int>(p.n);
    args.k = static_cast<int>(p.k);
    args.num_groups = static_cast<int>(p.num_groups);
    args.tiles_m = static_cast<int>(ceil_div(p.m, c.tile_m));
    args.tiles_n = static_cast<int>(ceil_div(p.n, c.tile_n));
    args.band = launch.band;
    args.expected_tiles_m = std::min(launch.expected_tiles_m, launch.band);
    args.weight_read_once = launch.weight_read_once;
    args.begins_first = c.stages_begun() > 0 && launch.weight_read_once && args.tiles_m == 1 &&
                        ceil_div(p.k, kBlockK) >= c.stages_begun() * c.split_k;
    args.a_scale = p.a_scale;
    args.aligned_m = static_cast<int>(p.aligned_m);
    args.b_scale = p.b_scale;
    args.group_rows = p.group_rows;
    if (launch.dynamic) args.counter = exec.counter;
    args.d = p.d;
    args.ldd = p.ldd;

    int64_t tiles = ceil_div(p.m, c.tile_m) * ceil_div(p.n, c.tile_n);
    if (p.groups == Groups::kMasked) tiles *= p.num_groups;
    if (p.groups == Groups::kContiguous)  // at most; each group may end with a cut tile
        tiles = (ceil_div(p.m, c.tile_m) + p.num_groups) * ceil_div(p.n, c.tile_n);
    // Clusters that share k have one tile each; others go on to the next tile.
    if (c.split_k == 1) tiles = std::min<int64_t>(tiles, loaded.clusters);
    const int clusters = static_cast<int>(tiles);
    args.stages = stages_of(c, static_cast<int64_t>(clusters) * c.split_k);
    void* arguments[] = {&a_map, &b_map, &d_map, &args};
    device::launch(loaded.kernel, shape_of(c, clusters * c.split_k), arguments, exec.stream);
}

}  // namespace dsa::gemm::cuda
