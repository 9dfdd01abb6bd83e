#pragma once
// Where a block keeps what in its shared memory.

#include "kernel_config.h"
#include "ptx.cuh"

namespace dsa::gemm::cuda {

using ptx::u32;
using ptx::u64;

// Addresses in shared memory.
template <KernelConfig c>
struct Shared {
    u32 base;  // a multiple of 1024

    __device__ u32 staging(int group) const { return base + group * c.staging_bytes(); }
    __device__ u32 side_m(int stage) const {
        return base + c.math_groups * c.staging_bytes() + stage * c.stage_m_bytes();
    }
    __device__ u32 side_n(int stage) const {
        return side_m(c.stages()) + stage * c.stage_n_bytes();
    }
    __device__ u32 scale(int stage) const { return side_n(c.stages()) + stage * c.scale_bytes(); }
    __device__ u32 full(int stage) const {
        return scale(c.stages()) + (c.dynamic() ? kNextTiles * 16 : 0) + stage * 8;
    }
    __device__ u32 empty(int stage) const { return full(c.stages()) + stage * 8; }
    // Completes when a warpgroup's staged tile has been stored.
    __device__ u32 staging_free(int group) const { return empty(c.stages()) + group * 8; }
    // Completes when the sums that this block finishes have come from the blocks it shares k with.
    __device__ u32 parts() const { return staging_free(c.math_groups); }
    // 16 bytes: the tile behind the block's tile number `tile`.
    __device__ u32 next_tile(int tile) const { return scale(c.stages()) + tile % kNextTiles * 16; }
    __device__ u32 groups() const { return parts() + (c.split_k > 1 ? 8 : 0); }
};

}  // namespace dsa::gemm::cuda
