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

// From the work w on, if there is any. Tells the block's other threads which tile is next.
template <KernelConfig c>
__device__ void produce(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                        const KernelArgs& args, int n, int k_blocks, Schedule<c> schedule,
                        Shared<c> shared, Work w, bool any) {
    // Lines that are read once shall not push others (dirty ones first) out of L2.
    const u64 weight_policy = args.weight_read_once ? ptx::kEvictFirst : ptx::kEvictNormal;
    const u64 a_policy = args.weight_read_once ? ptx::kEvictLast : ptx::kEvictNormal;
    Ring<c> ring(args);
    int number = static_cast<int>(blockIdx.x);  // of the block's tile `tile` among all
    int tile = 0;
    while (any) {
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
        const auto load_stage = [&](int kb) {
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
        };
        if constexpr (c.dynamic()) {
            const auto load = [&](int kb, int end) {
                for (; kb < end; ++kb, ring.advance()) load_stage(kb);
            };
            // Late, or in turn while the ring is full. The number is on its way for one stage.
            const int tell_at =
                schedule.takes() ? w.k_end - 1 : min(w.k_begin + ring.stages, w.k_end - 1);
            const int take_at = max(w.k_begin, tell_at - 1);
            load(w.k_begin, take_at);
            number = schedule.take_after(number);
            load(take_at, tell_at);
            Work next;
            any = schedule.find(number, next);
            tell_next<c>(shared, tile++, any, next);
            load(tell_at, w.k_end);
            w = next;
        } else {
            for (int kb = w.k_begin; kb < w.k_end; ++kb, ring.advance()) load_stage(kb);
            any = schedule.next(w);
        }
    }
}

}  // namespace dsa::gemm::cuda
