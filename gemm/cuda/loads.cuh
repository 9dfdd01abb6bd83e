#pragma once
// The loads of the kernel family: one thread fills the ring of stages in shared memory.

#include "kernel_config.h"
#include "ptx.cuh"
#include "schedule.cuh"
#include "shared.cuh"

namespace dsa::gemm::cuda {

// Position in the ring.
template <KernelConfig c>
struct Ring {
    int stages;  // that are used
    int stage = 0;
    u32 phase = 0;

    __device__ explicit Ring(const KernelArgs& args)
        : stages(c.stages() > kFewestStages ? args.stages : c.stages()) {}
    __device__ void advance() {
        if (++stage == stages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

// From the work w on, if there is any.
template <KernelConfig c>
__device__ void produce(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                        const KernelArgs& args, int n, int k_blocks, Schedule<c> schedule,
                        Shared<c> shared, Work w, bool any) {
    // Lines that are read once shall not push others (dirty ones first) out of L2.
    const u64 weight_policy = args.weight_read_once ? ptx::kEvictFirst : ptx::kEvictNormal;
    const u64 a_policy = args.weight_read_once ? ptx::kEvictLast : ptx::kEvictNormal;
    Ring<c> ring(args);
    for (; any; any = schedule.next(w)) {
        const int b_row = w.group * n + w.col;
        const int scale_row = c.groups == Groups::kMasked ? w.group * k_blocks : 0;
        const int scale_col =
            (c.groups == Groups::kMasked ? w.row - w.group * args.m : w.row) / 4 * 4;
        // Not to the end of a row of scales: A may be some rows of a larger one.
        const u32 scale_bytes = max(min(c.scale_rows(), (args.m + 3) / 4 * 4 - scale_col), 0) * 4;
        const float* scales =
            args.a_scale + static_cast<long long>(scale_row) * args.aligned_m + scale_col;
        const int boxes = c.load_rows() == c.tile_m
                              ? 1
                              : min((w.row_end - w.row + c.load_rows() - 1) / c.load_rows(),
                                    c.tile_m / c.load_rows());
        constexpr u32 kBoxBytes = c.load_rows() * kBlockK, kWeightBytes = c.tile_n * kBlockK;
        const u32 bytes = kWeightBytes + boxes * kBoxBytes + scale_bytes;
        for (int kb = w.k_begin; kb < w.k_end; ++kb, ring.advance()) {
            ptx::barrier_wait(shared.empty(ring.stage), ring.phase ^ 1);
            const u32 full = shared.full(ring.stage);
            ptx::barrier_expect(full, bytes);
            const u32 a = c.swapped ? shared.side_n(ring.stage) : shared.side_m(ring.stage);
            const u32 b = c.swapped ? shared.side_m(ring.stage) : shared.side_n(ring.stage);
            const int k = kb * kBlockK;
            ptx::load_box(b, b_map, k, b_row, full, weight_policy);
            for (int box = 0; box < boxes; ++box)
                ptx::load_box(a + box * kBoxBytes, a_map, k, w.row + box * c.load_rows(), full,
                              a_policy);
            if (scale_bytes > 0)
                ptx::load_bytes(shared.scale(ring.stage),
                                scales + static_cast<long long>(kb) * args.aligned_m, scale_bytes,
                                full);
        }
    }
}

}  // namespace dsa::gemm::cuda
