#pragma once
// Sums of a tile on their way from registers to D: added up where several shared the tile's k, then
// stored.

#include "kernel_config.h"
#include "ptx.cuh"
#include "schedule.cuh"
#include "shared.cuh"

namespace dsa::gemm::cuda {

// Groups of 8 of side N, [begin, end).
struct Columns {
    int begin, end;
};

// fp32, straight from the registers.
template <KernelConfig c>
__device__ void store_f32(const KernelArgs& args, const Work& w, int n,
                          const float (&total)[c.waves()][c.side_n() / 2], Columns columns,
                          int group, int thread) {
    float* d = static_cast<float*>(args.d);
#pragma unroll
    for (int wave = 0; wave < c.waves(); ++wave) {
#pragma unroll
        for (int j = 0; j < c.side_n() / 8; ++j) {
            if (j < columns.begin || j >= columns.end) continue;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int on_m = wave * 64 * c.math_groups + 64 * group + thread / 32 * 16 +
                                 thread % 32 / 4 + i / 2 * 8;
                const int on_n = 8 * j + thread % 4 * 2 + i % 2;
                const int row = w.row + (c.swapped ? on_n : on_m),
                          col = w.col + (c.swapped ? on_m : on_n);
                if (row < w.row_end && col < n) d[row * args.ldd + col] = total[wave][4 * j + i];
            }
        }
    }
}

// Rows [row, row + rows) of D from a staged box, by a warp: where a group ends within the box that
// the copy engine would store.
__device__ inline void store_cut_box(const KernelArgs& args, u32 box, int rows, int row, int col,
                                     int n) {
    unsigned short* d = static_cast<unsigned short*>(args.d);
    for (int i = static_cast<int>(threadIdx.x) % 32; i < rows * 8; i += 32) {
        const int r = i / 8, piece = i % 8;
        if (col + piece * 8 >= n) continue;
        *reinterpret_cast<uint4*>(d + (row + r) * args.ldd + col + piece * 8) =
            ptx::load_shared_16(box + r * 128 + ((piece ^ (r & 7)) << 4));
    }
}

// Lane q of a quad gives word j to lane j, whose word q it gets.
__device__ inline void transpose_quad(u32 (&word)[4], int q) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j & bit) continue;
            u32& low = word[j];
            u32& high = word[j | bit];
            const u32 got = __shfl_xor_sync(0xffffffffu, q & bit ? low : high, bit);
            (q & bit ? low : high) = got;
        }
    }
}

// bf16 straight from the registers, 16 bytes a lane: A on side M, fewer columns than a box has.
template <KernelConfig c>
__device__ void store_columns(const KernelArgs& args, const Work& w, int n,
                              const float (&totals)[c.waves()][c.side_n() / 2], Columns columns,
                              int group, int thread) {
    unsigned short* d = static_cast<unsigned short*>(args.d);
    const int q = thread % 4;
#pragma unroll
    for (int wave = 0; wave < c.waves(); ++wave) {
        const auto& total = totals[wave];
        const int first = w.row + (wave * c.math_groups + group) * 64;
        if (first >= w.row_end) continue;
        const int row = first + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
        for (int j = 0; j < c.side_n() / 8; j += 4) {
            if (j + 4 <= columns.begin || j >= columns.end) continue;
            const int col = w.col + 8 * (j + q);
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                u32 word[4];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    word[i] =
                        ptx::pack_bf16(total[4 * (j + i) + 2 * h], total[4 * (j + i) + 2 * h + 1]);
                transpose_quad(word, q);
                if (j + q >= columns.begin && j + q < columns.end && col < n &&
                    row + 8 * h < w.row_end)
                    *reinterpret_cast<uint4*>(d + (row + 8 * h) * args.ldd + col) =
                        uint4{word[0], word[1], word[2], word[3]};
            }
        }
    }
}

// bf16 of a tile with the weight on side M: each warp turns its 16 columns of D around in its own
// part of `staging` and stores them, 32 bytes of a row by two lanes. The part lies where the warp
// itself found the sums of other blocks.
template <KernelConfig c>
__device__ void store_transposed(const KernelArgs& args, const Work& w, int n,
                                 const float (&total)[c.side_n() / 2], Columns columns, u32 staging,
                                 int group, int thread) {
    const int lane = thread % 32, warp = thread / 32;
    const auto place = [&](int row) {  // 32 bytes
        return staging + row / 16 * (kWarpgroup * 16) + warp * 512 + row % 16 * 32;
    };
    __syncwarp();  // the tile before, or the sums of other blocks, have been read
#pragma unroll
    for (int j = 0; j < c.side_n() / 8; ++j) {
        const float* sum = total + 4 * j;
        ptx::store_matrices_transposed(place(8 * j + lane % 8) + lane / 8 % 2 * 16,
                                       ptx::pack_bf16(sum[0], sum[1]),
                                       ptx::pack_bf16(sum[2], sum[3]));
    }
    __syncwarp();
    unsigned short* d = static_cast<unsigned short*>(args.d);
    const int col = w.col + 64 * group + 16 * warp + lane % 2 * 8;
#pragma unroll
    for (int i = 0; i < c.tile_m; i += 16) {
        const int row = i + lane / 2;
        if (row >= c.tile_m || row / 8 < columns.begin || row / 8 >= columns.end) continue;
        if (w.row + row < w.row_end && col < n)
            *reinterpret_cast<uint4*>(d + (w.row + row) * args.ldd + col) =
                ptx::load_shared_16(place(row) + lane % 2 * 16);
    }
}

// ---- bf16 through shared memory, stored by the copy engine ----
//
// A warp of the producer's warpgroup stores what a warpgroup has staged, which goes on to its next
// tile.

// Named barrier: a warpgroup has staged (its threads and the warp that stores).
__device__ inline u32 staged_barrier(int group) {
    return 1 + group;
}

// The sums of a tile as boxes of 64 x 64: [wave][slab].
template <KernelConfig c>
__device__ inline void stage_sums(const float (&total)[c.waves()][c.side_n() / 2], u32 staging,
                                  int thread) {
    const int r = thread / 32 * 16 + thread % 16;
#pragma unroll
    for (int wave = 0; wave < c.waves(); ++wave) {
#pragma unroll
        for (int j = 0; j < c.side_n() / 8; j += 2) {
            const float* sum = total[wave] + 4 * j;
            const int piece = j % 8 + thread % 32 / 16;
            const u32 box = staging + (wave * c.slabs() + j / 8) * kBoxBytes;
            ptx::store_matrices(box + r * 128 + ((piece ^ (r & 7)) << 4),
                                ptx::pack_bf16(sum[0], sum[1]), ptx::pack_bf16(sum[2], sum[3]),
                                ptx::pack_bf16(sum[4], sum[5]), ptx::pack_bf16(sum[6], sum[7]));
        }
    }
}

// Of a warpgroup that multiplies. phase: of its tiles, 0 first.
template <KernelConfig c>
__device__ void stage_tile(const float (&total)[c.waves()][c.side_n() / 2], Shared<c> shared,
                           int group, int thread, u32 phase) {
    ptx::barrier_wait(shared.staging_free(group), phase ^ 1);
    stage_sums<c>(total, shared.staging(group), thread);
    ptx::fence_async_shared();
    ptx::named_barrier_arrive(staged_barrier(group), kWarpgroup + 32);
}

// Of the warp that stores what warpgroup `group` stages.
template <KernelConfig c>
__device__ void store_tiles(const ptx::TensorMap& d_map, const KernelArgs& args, int n,
                            Schedule<c> schedule, Shared<c> shared, int group) {
    const u32 staging = shared.staging(group);
    Work w;
    bool more = schedule.next(w);
    for (int tile = 0; more; ++tile) {
        ptx::named_barrier(staged_barrier(group), kWarpgroup + 32);
        const bool one = ptx::elect_lane();
        for (int i = 0; i < c.waves() * c.slabs(); ++i) {
            const int row = w.row + (i / c.slabs() * c.math_groups + group) * kBoxRows;
            const int col = w.col + i % c.slabs() * 64;
            const int rows = min(w.row_end - row, kBoxRows);
            const u32 box = staging + i * kBoxBytes;
            if (rows <= 0 || col >= n) continue;
            if (c.groups != Groups::kDense && rows < kBoxRows)
                store_cut_box(args, box, rows, row, col, n);
            else if (one)
                ptx::store_box(d_map, box, col, row);
        }
        __syncwarp();
        if (one) {
            ptx::store_commit();
            ptx::store_wait_read();
            ptx::barrier_arrive(shared.staging_free(group));
        }
        more = c.dynamic() ? next_told<c>(shared, tile, w) : schedule.next(w);
    }
}

// ---- sums of blocks that share the k of a tile ----
//
// Each block finishes some columns of d. It gets the sums of the other blocks, thread by thread,
// through the cluster's shared memory, where D is staged later.

// The columns that this block, `part` of those that share k, finishes.
template <KernelConfig c>
__device__ inline Columns columns_of(int part) {
    constexpr int kColumns = c.side_n() / 8;
    return {min(part * c.part_columns(), kColumns), min((part + 1) * c.part_columns(), kColumns)};
}
template <KernelConfig c>
__device__ inline u32 bytes_of_parts(int part) {
    const Columns own = columns_of<c>(part);
    return (c.split_k - 1) * (own.end - own.begin) * c.math_groups * kWarpgroup * 16;
}
// Where a block keeps the sums of column j that come from block `from`.
template <KernelConfig c>
__device__ inline u32 slot(Shared<c> shared, int from, int owner, int j, int group, int thread) {
    const int place = (from < owner ? from : from - 1) * c.part_columns() + j % c.part_columns();
    return shared.staging(group) + (place * kWarpgroup + thread) * 16;
}

// total of this block's own columns += those of the others, in the order of the parts. The blocks
// of the cluster have begun (cluster_wait).
template <KernelConfig c>
__device__ void add_parts(float (&total)[c.side_n() / 2], Shared<c> shared, int part, int group,
                          int thread) {
    constexpr int kColumns = c.side_n() / 8;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
        const int owner = j / c.part_columns();
        if (owner == part) continue;
        const float* sum = total + 4 * j;
        ptx::store_remote(slot<c>(shared, part, owner, j, group, thread), owner, shared.parts(),
                          {sum[0], sum[1], sum[2], sum[3]});
    }
    ptx::barrier_wait_cluster(shared.parts(), 0);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
        if (j / c.part_columns() != part) continue;
        float* own = total + 4 * j;
        float4 sum;
#pragma unroll
        for (int p = 0; p < c.split_k; ++p) {
            float4 next = {own[0], own[1], own[2], own[3]};
            if (p != part) next = ptx::load_shared4(slot<c>(shared, p, part, j, group, thread));
            sum = p == 0 ? next
                         : float4{sum.x + next.x, sum.y + next.y, sum.z + next.z, sum.w + next.w};
        }
        own[0] = sum.x, own[1] = sum.y, own[2] = sum.z, own[3] = sum.w;
    }
}

}  // namespace dsa::gemm::cuda
