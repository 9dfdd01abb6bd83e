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

// The loads of one tile.
template <KernelConfig c>
class TileLoads {
  public:
    __device__ TileLoads(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                         const KernelArgs& args, int n, int k_blocks, const Work& w)
        : a_map_(a_map), b_map_(b_map), aligned_m_(args.aligned_m), row_(w.row) {
        // Lines that are read once shall not push others (dirty ones first) out of L2.
        weight_policy_ = args.weight_read_once ? ptx::kEvictFirst : ptx::kEvictNormal;
        a_policy_ = args.weight_read_once ? ptx::kEvictLast : ptx::kEvictNormal;
        b_row_ = w.group * n + w.col;
        const int scale_row = c.groups == Groups::kMasked ? w.group * k_blocks : 0;
        const int scale_col =
            (c.groups == Groups::kMasked ? w.row - w.group * args.m : w.row) / 4 * 4;
        // Not to the end of a row of scales: A may be some rows of a larger one.
        scale_bytes_ = max(min(c.scale_rows(), (args.m + 3) / 4 * 4 - scale_col), 0) * 4;
        scales_ = args.a_scale + static_cast<long long>(scale_row) * args.aligned_m + scale_col;
        boxes_ = c.load_rows() == c.tile_m
                     ? 1
                     : min((w.row_end - w.row + c.load_rows() - 1) / c.load_rows(),
                           c.tile_m / c.load_rows());
    }
    // Of tile number `tile` where begins_first: of this argument and of constants that are soon
    // there.
    __device__ TileLoads(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                         const KernelArgs& args, int tile)
        : a_map_(a_map),
          b_map_(b_map),
          scales_(args.a_scale),
          weight_policy_(ptx::kEvictFirst),
          a_policy_(ptx::kEvictLast),
          aligned_m_(args.aligned_m),
          row_(0),
          b_row_(tile * c.tile_n),
          boxes_(1),
          scale_bytes_(min(c.scale_rows(), (args.m + 3) / 4 * 4) * 4) {}
    // Block kb of k, into a stage that is free.
    __device__ void load(Shared<c> shared, int stage, int kb) const {
        load_weight(shared, stage, kb);
        load_a(shared, stage, kb);
    }
    // Its two halves, in this order.
    __device__ void load_weight(Shared<c> shared, int stage, int kb) const {
        constexpr u32 kWeightBytes = c.tile_n * kBlockK;
        const u32 full = shared.full(stage);
        ptx::barrier_expect(full, kWeightBytes + boxes_ * kBoxBytes + scale_bytes_);
        ptx::load_box(c.swapped ? shared.side_m(stage) : shared.side_n(stage), b_map_, kb * kBlockK,
                      b_row_, full, weight_policy_);
    }
    __device__ void load_a(Shared<c> shared, int stage, int kb) const {
        const u32 full = shared.full(stage);
        const u32 a = c.swapped ? shared.side_n(stage) : shared.side_m(stage);
        for (int box = 0; box < boxes_; ++box)
            ptx::load_box(a + box * kBoxBytes, a_map_, kb * kBlockK, row_ + box * c.load_rows(),
                          full, a_policy_);
        if (scale_bytes_ > 0)
            ptx::load_bytes(shared.scale(stage), scales_ + static_cast<long long>(kb) * aligned_m_,
                            scale_bytes_, full);
    }

  private:
    static constexpr u32 kBoxBytes = c.load_rows() * kBlockK;

    const ptx::TensorMap& a_map_;
    const ptx::TensorMap& b_map_;
    const float* scales_;
    u64 weight_policy_, a_policy_;
    int aligned_m_, row_, b_row_, boxes_;
    u32 scale_bytes_;
};

// From the work w on, the block's first, if there is any. In kernels that are dynamic() it tells
// the block's other warps which tile is next.
template <KernelConfig c>
__device__ void produce(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                        const KernelArgs& args, int n, int k_blocks, Schedule<c> schedule,
                        Shared<c> shared, Work w, bool any) {
    Ring<c> ring(args);
    if (c.stages_begun() > 0 && args.begins_first) ring.stage = c.stages_begun();
    int number = static_cast<int>(blockIdx.x);  // of the block's tile `tile` among all
    int tile = 0;
    for (int kb = ring.stage; any; kb = 0) {
        const TileLoads<c> loads(a_map, b_map, args, n, k_blocks, w);
        const auto load_until = [&](int end) {
            for (; kb < end; ++kb, ring.advance()) {
                ptx::barrier_wait(shared.empty(ring.stage), ring.phase ^ 1);
                loads.load(shared, ring.stage, block_of_k<c>(w.part, kb));
            }
        };
        if constexpr (c.dynamic()) {
            // Late, or in turn while the ring is full. The number is on its way for one stage.
            const int tell_at =
                schedule.takes() ? w.part_blocks - 1 : min(ring.stages, w.part_blocks - 1);
            load_until(tell_at - 1);
            number = schedule.take_after(number);
            load_until(tell_at);
            Work next;
            any = schedule.find(number, next);
            tell_next<c>(shared, tile++, any, next);
            load_until(w.part_blocks);
            w = next;
        } else {
            load_until(w.part_blocks);
            any = schedule.next(w);
        }
    }
}

}  // namespace dsa::gemm::cuda
