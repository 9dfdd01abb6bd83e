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
    int stage = 0;
    u32 phase = 0;
    __device__ void advance() {
        if (++stage == c.stages()) {
            stage = 0;
            phase ^= 1;
        }
    }
    __device__ void advance(int steps) {
        stage += steps;
        const int rounds = stage / c.stages();
        stage -= rounds * c.stages();
        phase ^= rounds & 1;
    }
};

template <KernelConfig c>
__device__ void produce(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                        const KernelArgs& args, int n, int k_blocks, Schedule<c> schedule,
                        Shared<c> shared, int rank) {
    constexpr u32 kBytes = c.stage_m_bytes() + c.stage_n_bytes();
    // Few rows: the weight is read once, and its lines shall not push others (dirty ones first) out
    // of L2.
    constexpr u64 kWeightPolicy = c.swapped ? ptx::kEvictFirst : ptx::kEvictNormal;
    const int rank_m = rank % c.cluster_m, rank_n = rank / c.cluster_m;
    Ring<c> ring;
    for (Work w; schedule.next(w);) {
        const int b_row = w.group * n + w.col;
        const int scale_row = c.groups == Groups::kMasked ? w.group * k_blocks : 0;
        const int scale_col =
            (c.groups == Groups::kMasked ? w.row - w.group * args.m : w.row) / 4 * 4;
        // Not to the end of a row of scales: A may be some rows of a larger one.
        const u32 scale_bytes = max(min(c.scale_rows(), (args.m + 3) / 4 * 4 - scale_col), 0) * 4;
        const float* scales =
            args.a_scale + static_cast<long long>(scale_row) * args.aligned_m + scale_col;
        for (int kb = w.k_begin; kb < w.k_end; ++kb, ring.advance()) {
            ptx::barrier_wait(shared.empty(ring.stage), ring.phase ^ 1);
            const u32 full = shared.full(ring.stage);
            ptx::barrier_expect(full, kBytes + scale_bytes);
            const u32 a = c.swapped ? shared.side_n(ring.stage) : shared.side_m(ring.stage);
            const u32 b = c.swapped ? shared.side_m(ring.stage) : shared.side_n(ring.stage);
            const int k = kb * kBlockK;
            if constexpr (c.cluster_m >
                          1) {  // the blocks along m fetch a part of the weight each, for all
                constexpr int kRows = c.tile_n / c.cluster_m;
                constexpr unsigned short kAlong = (1u << c.cluster_m) - 1;
                ptx::load_box_multicast(
                    b + rank_m * kRows * kBlockK, b_map, k, b_row + rank_m * kRows, full,
                    static_cast<unsigned short>(kAlong << (rank - rank_m)), kWeightPolicy);
            } else {
                ptx::load_box(b, b_map, k, b_row, full, kWeightPolicy);
            }
            if constexpr (c.cluster_n > 1) {
                constexpr int kRows = c.tile_m / c.cluster_n;
                unsigned short along = 0;
#pragma unroll
                for (int i = 0; i < c.cluster_n; ++i) along |= 1u << (i * c.cluster_m + rank_m);
                ptx::load_box_multicast(a + rank_n * kRows * kBlockK, a_map, k,
                                        w.row + rank_n * kRows, full, along, ptx::kEvictLast);
            } else {
                ptx::load_box(a, a_map, k, w.row, full,
                              c.swapped ? ptx::kEvictLast : ptx::kEvictNormal);
            }
            if (scale_bytes > 0)
                ptx::load_bytes(shared.scale(ring.stage),
                                scales + static_cast<long long>(kb) * args.aligned_m, scale_bytes,
                                full);
        }
    }
}

}  // namespace dsa::gemm::cuda
