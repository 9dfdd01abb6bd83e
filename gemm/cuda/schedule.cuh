#pragma once
// Which tile a block, or the cluster of those that share a tile's k, works on next.

#include "kernel_config.h"
#include "ptx.cuh"
#include "shared.cuh"

namespace dsa::gemm::cuda {

// A tile, or the part of its k that one of the blocks that share it has.
struct Work {
    int group;
    int row;          // first row of A and D
    int row_end;      // of the group
    int col;          // first column of D within the group
    int part;         // of k
    int part_blocks;  // of 128 of k, that this part has
};

// Which of k's blocks of 128 is block kb of a part. The parts take them in turn: memory is then
// read in pieces that are split_k times longer, by blocks that run at the same time.
template <KernelConfig c>
__device__ inline int block_of_k(int part, int kb) {
    return c.split_k > 1 ? part + kb * c.split_k : kb;
}

// Tiles in order: group after group; within one, bands of `band` tiles along m, inside a band m
// fastest, so that blocks that run at the same time share operands in L2. They go to the clusters
// in turn: warps of a block ask next() independently and get the same answers. In kernels that are
// dynamic() only the first one does. The thread that loads takes the others, each when it is ready
// for it (tiles at a group's end cost less), and tells the block's other warps.
template <KernelConfig c>
class Schedule {
  public:
    // first_tile, first_row: of each group, in shared memory; unused where dense. cluster: this
    // one, of `clusters`; part: which part of k is this block's.
    __device__ Schedule(const KernelArgs& a, int k_blocks, const int* first_tile,
                        const int* first_row, int cluster, int clusters, int part)
        : a_(a),
          first_tile_(first_tile),
          first_row_(first_row),
          k_blocks_(k_blocks),
          next_(cluster),
          step_(clusters),
          part_(part) {
        tiles_ = c.groups == Groups::kDense ? a.tiles_m * a.tiles_n : first_tile[a.num_groups];
    }

    __device__ bool next(Work& w) {
        if (next_ >= tiles_) return false;
        locate(next_, w);
        next_ = c.split_k > 1 ? tiles_ : next_ + step_;  // a cluster that shares k has one tile
        return true;
    }

    // The number of the tile after number `tile`: the first that nobody has taken or, without a
    // counter, in turn. It is some time on its way. One thread of each block that has a tile asks
    // until it gets a number that is none.
    __device__ int take_after(int tile) const {
        if (!takes()) return tile + step_;
        const int taken = atomicAdd(a_.counter, 1);
        if (taken == tiles_ - 1) *a_.counter = 0;  // the last to ask: each asked once in vain
        return step_ + taken;
    }
    __device__ bool takes() const { return a_.counter != nullptr; }
    // False if there are not so many tiles.
    __device__ bool find(int tile, Work& w) const {
        if (tile >= tiles_) return false;
        locate(tile, w);
        return true;
    }

    __device__ static int tiles_m(int rows) { return (rows + c.tile_m - 1) / c.tile_m; }

  private:
    __device__ void locate(int tile, Work& w) const {
        w.part = part_;
        w.part_blocks = (k_blocks_ - part_ + c.split_k - 1) / c.split_k;
        w.group = 0;
        int row0 = 0, rows = a_.m;
        if (c.groups != Groups::kDense) {
            int low = 0,
                high = a_.num_groups;  // the last group whose first tile is not behind this one
            while (high - low > 1) {
                const int middle = (low + high) / 2;
                if (first_tile_[middle] <= tile)
                    low = middle;
                else
                    high = middle;
            }
            w.group = low;
            tile -= first_tile_[low];
            row0 = c.groups == Groups::kMasked ? low * a_.m : first_row_[low];
            rows = c.groups == Groups::kMasked ? first_row_[low] : first_row_[low + 1] - row0;
        }
        const int count = c.groups == Groups::kDense ? a_.tiles_m : tiles_m(rows);
        // Divisions are slow, and the first tile is what a kernel begins with.
        const int in_band = a_.band * a_.tiles_n;
        const int band = tile < in_band ? 0 : tile / in_band;
        tile -= band * in_band;
        const int height = min(a_.band, count - band * a_.band);
        const int at_n = height == 1 ? tile : tile / height;
        const int at_m = band * a_.band + tile - at_n * height;
        w.row = row0 + at_m * c.tile_m;
        w.row_end = row0 + rows;
        w.col = at_n * c.tile_n;
    }

    const KernelArgs& a_;
    const int* first_tile_;
    const int* first_row_;
    int k_blocks_, next_, step_, part_;
    int tiles_;
};

// The tile behind the block's tile number `tile`. Told before the last stage of that tile is
// loaded, it is there when this stage is, and for the next kNextTiles - kMostStages tiles.
template <KernelConfig c>
__device__ inline void tell_next(Shared<c> shared, int tile, bool any, const Work& next) {
    ptx::store_shared_16(shared.next_tile(tile),
                         {static_cast<u32>(any ? next.group : -1), static_cast<u32>(next.row),
                          static_cast<u32>(next.row_end), static_cast<u32>(next.col)});
}
// By whole warps. w: of the tile before. False if there is none.
template <KernelConfig c>
__device__ inline bool next_told(Shared<c> shared, int tile, Work& w) {
    const uint4 next = ptx::load_shared_16(shared.next_tile(tile));
    // Through shuffles the compiler sees that all lanes have the same.
    const auto same = [](u32 v) { return static_cast<int>(__shfl_sync(0xffffffffu, v, 0)); };
    w.group = same(next.x);
    w.row = same(next.y);
    w.row_end = same(next.z);
    w.col = same(next.w);
    return w.group >= 0;
}

}  // namespace dsa::gemm::cuda
