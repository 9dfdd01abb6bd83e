#pragma once
// What a kernel does before its first product: first loads, barriers, counting of tiles.

#include "kernel_config.h"
#include "loads.cuh"
#include "ptx.cuh"
#include "schedule.cuh"
#include "shared.cuh"
#include "sums.cuh"

namespace dsa::gemm::cuda {

// First tile and first row (contiguous) or rows (masked) of each group, by one warp.
template <KernelConfig c>
__device__ inline void count_tiles(const KernelArgs& args, int* first_tile, int* first_row) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int before = 0;
    for (int g0 = 0; g0 < args.num_groups; g0 += 32) {
        const int g = g0 + lane;
        int rows = 0, first = 0;
        if (g < args.num_groups) {
            first = args.group_rows[g];
            rows = c.groups == Groups::kMasked ? min(max(first, 0), args.m)
                                               : args.group_rows[g + 1] - first;
            if (c.groups == Groups::kMasked) first = rows;
        }
        const int tiles = Schedule<c>::tiles_m(rows) * args.tiles_n;
        int sum = tiles;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int left = __shfl_up_sync(0xffffffffu, sum, d);
            if (lane >= d) sum += left;
        }
        if (g < args.num_groups) {
            first_tile[g] = before + sum - tiles;
            first_row[g] = first;
        }
        before += __shfl_sync(0xffffffffu, sum, 31);
    }
    if (lane == 0) {
        first_tile[args.num_groups] = before;
        first_row[args.num_groups] =
            c.groups == Groups::kMasked ? 0 : args.group_rows[args.num_groups];
    }
}

// The block's barriers but those that begin_first() makes, by one thread of each of two warps:
// making one takes a dozen clocks.
template <KernelConfig c>
__device__ inline void make_barriers(Shared<c> shared, int part) {
    if (threadIdx.x == 64) {
        for (int i = c.stages_begun(); i < c.stages(); ++i) ptx::barrier_init(shared.full(i), 1);
        ptx::fence_barrier_init();
    } else if (threadIdx.x == 96) {
        for (int i = 0; i < c.stages(); ++i)
            ptx::barrier_init(shared.empty(i), c.math_groups * kReleases);
        for (int g = 0; g < c.math_groups; ++g) ptx::barrier_init(shared.staging_free(g), 1);
        if constexpr (c.split_k > 1) {
            ptx::barrier_init(shared.parts(), 1);
            ptx::barrier_expect(shared.parts(), bytes_of_parts<c>(part));
        }
        ptx::fence_barrier_init();
    }
}

// The first loads of the first tile, by one warp, before anything else is done, and as little as
// can be before them: until they are on their way memory idles.
template <KernelConfig c>
__device__ inline void begin_first(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                                   const KernelArgs& args, Shared<c> shared) {
    static_assert(c.stages() > c.stages_begun());
    if (ptx::elect_lane()) {
#pragma unroll
        for (int i = 0; i < c.stages_begun(); ++i) ptx::barrier_init(shared.full(i), 1);
        ptx::fence_barrier_init();
        if (args.begins_first) {
            const TileLoads<c> loads(a_map, b_map, args, static_cast<int>(blockIdx.x) / c.split_k);
            const int part = static_cast<int>(blockIdx.x) % c.split_k;
#pragma unroll
            for (int i = 0; i < c.stages_begun(); ++i)
                loads.load_weight(shared, i, block_of_k<c>(part, i));
#pragma unroll
            for (int i = 0; i < c.stages_begun(); ++i)
                loads.load_a(shared, i, block_of_k<c>(part, i));
        }
    }
    __syncwarp();
}

// With groups, by one warp: the weight of the tile that this block begins with if all groups have
// as many rows as were expected goes to L2 while the rows that they have are on their way. If they
// have others nothing is wrong.
template <KernelConfig c>
__device__ inline void prefetch_expected(const ptx::TensorMap& b_map, const KernelArgs& args) {
    constexpr int kBlocks = 2;  // of 128 of k
    const int height = args.expected_tiles_m;
    if (height > 0 && ptx::elect_lane()) {
        const int at = static_cast<int>(blockIdx.x) / height;  // in columns of tiles
        if (at < args.num_groups * args.tiles_n) {
            const int group = at / args.tiles_n;
            const int row = group * args.n + (at - group * args.tiles_n) * c.tile_n;
#pragma unroll
            for (int kb = 0; kb < kBlocks; ++kb) ptx::prefetch_box(b_map, kb * kBlockK, row);
        }
    }
    __syncwarp();
}

}  // namespace dsa::gemm::cuda
