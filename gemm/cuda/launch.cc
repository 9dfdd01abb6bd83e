#include "gemm/cuda/launch.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "dsa/error.h"
#include "gemm/cuda/built_kernels.h"

namespace dsa::gemm::cuda {
namespace {

// A kernel ready to run, and how many clusters of it the device holds.
struct Loaded {
    device::Library library;
    device::Kernel kernel;
    int clusters = 0;
};

device::LaunchShape shape_of(const KernelConfig& c, int blocks) {
    return {blocks, c.threads(), c.split_k, c.shared_bytes()};
}

const Loaded& load(const BuiltKernel& built) {
    static std::mutex mutex;
    static std::map<const unsigned char*, std::unique_ptr<Loaded>> loaded;
    const std::lock_guard lock(mutex);
    std::unique_ptr<Loaded>& entry = loaded[built.cubin];
    if (entry == nullptr) {
        auto fresh = std::make_unique<Loaded>();
        fresh->library = device::Library(built.cubin);
        fresh->kernel = fresh->library.kernel("fp8_gemm", built.config.shared_bytes());
        fresh->clusters = device::max_active_clusters(fresh->kernel,
                                                      shape_of(built.config, built.config.split_k));
        entry = std::move(fresh);
    }
    return *entry;
}

const BuiltKernel* find(const KernelConfig& config) {
    for (const BuiltKernel& built : built_kernels())
        if (built.config == config) return &built;
    return nullptr;
}

}  // namespace

void run(CudaExec& exec, const Launch& launch, const Problem& p) {
    const KernelConfig& c = launch.config;
    const BuiltKernel* built = find(c);
    if (built == nullptr)
        throw_error(ErrorCode::kInternal, "fp8_gemm_nt: no such kernel was built");
    const Loaded& loaded = load(*built);
    const int64_t rows = p.groups == Groups::kMasked ? p.num_groups * p.m : p.m;
    using device::BoxType;

    device::BoxParams a_box{p.a, BoxType::kByte, rows, p.k, p.lda, c.load_rows(), kBlockK};
    device::BoxParams b_box{p.b, BoxType::kByte, p.num_groups * p.n, p.k, p.k, c.tile_n, kBlockK};
    device::TensorMap a_map = device::tensor_map(a_box);
    device::TensorMap b_map = device::tensor_map(b_box);
    device::TensorMap d_map{};
    if (!p.f32_out)
        d_map =
            device::tensor_map({p.d, BoxType::kBFloat16, rows, p.n, p.ldd * 2, c.store_rows(), 64});

    KernelArgs args;
    args.m = static_cast<int>(p.m);
    args.n = static_cast<int>(p.n);
    args.k = static_cast<int>(p.k);
    args.num_groups = static_cast<int>(p.num_groups);
    args.band = launch.band;
    args.weight_read_once = launch.weight_read_once;
    args.a_scale = p.a_scale;
    args.aligned_m = static_cast<int>(p.aligned_m);
    args.b_scale = p.b_scale;
    args.group_rows = p.group_rows;
    args.d = p.d;
    args.ldd = p.ldd;

    int64_t tiles = ceil_div(p.m, c.tile_m) * ceil_div(p.n, c.tile_n);
    if (p.groups == Groups::kMasked) tiles *= p.num_groups;
    if (p.groups == Groups::kContiguous)  // at most; each group may end with a cut tile
        tiles = (ceil_div(p.m, c.tile_m) + p.num_groups) * ceil_div(p.n, c.tile_n);
    // Clusters that share k have one tile each; others go on to the next tile.
    if (c.split_k == 1) tiles = std::min<int64_t>(tiles, loaded.clusters);
    const int clusters = static_cast<int>(tiles);
    void* arguments[] = {&a_map, &b_map, &d_map, &args};
    device::launch(loaded.kernel, shape_of(c, clusters * c.split_k), arguments, exec.stream);
}

}  // namespace dsa::gemm::cuda
