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

// Rows [first, first + rows) of a staged slab of 64 columns, by all threads of the warpgroup: where
// a group ends within the box that the copy engine would store.
__device__ inline void store_cut_slab(const KernelArgs& args, u32 slab, int first, int rows,
                                      int row, int row_end, int col, int n, int thread) {
    unsigned short* d = static_cast<unsigned short*>(args.d);
    for (int i = thread; i < rows * 8; i += kWarpgroup) {
        const int r = first + i / 8, piece = i % 8;
        if (row + r >= row_end || col + piece * 8 >= n) continue;
        *reinterpret_cast<uint4*>(d + (row + r) * args.ldd + col + piece * 8) =
            ptx::load_shared_16(slab + r * 128 + ((piece ^ (r & 7)) << 4));
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
                              const float (&total)[c.side_n() / 2], Columns columns, int group,
                              int thread) {
    unsigned short* d = static_cast<unsigned short*>(args.d);
    const int row = w.row + 64 * group + thread / 32 * 16 + thread % 32 / 4, q = thread % 4;
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
            if (j + q >= columns.begin && j + q < columns.end && col < n && row + 8 * h < w.row_end)
                *reinterpret_cast<uint4*>(d + (row + 8 * h) * args.ldd + col) =
                    uint4{word[0], word[1], word[2], word[3]};
        }
    }
}

// bf16 of a wave, through `staging`, this wave's part of the warpgroup's staging memory.
template <KernelConfig c>
__device__ void store_bf16(const ptx::TensorMap& d_map, const KernelArgs& args, const Work& w,
                           int n, const float (&total)[c.side_n() / 2], int wave, Columns columns,
                           u32 staging, int group, int thread) {
    const int lane = thread % 32, warp = thread / 32;
    constexpr int kRows = c.store_rows();
    const int row0 = c.swapped ? w.row : w.row + wave * 64 * c.math_groups + 64 * group;
    const int col0 = c.swapped ? w.col + 64 * group : w.col;
    const int first_box = c.swapped ? columns.begin : 0, boxes = c.swapped ? columns.end : 1;
    if (wave == 0) {  // the stores of the tile before have read it all
        if (thread == 0) ptx::store_wait_read();
        ptx::named_barrier(1 + group, kWarpgroup);
    }
    if constexpr (c.swapped) {
#pragma unroll
        for (int j = 0; j < c.side_n() / 8; ++j) {
            if (j < columns.begin || j >= columns.end) continue;
            const int row = 8 * j + lane % 8, piece = warp * 2 + lane / 8 % 2;
            ptx::store_matrices_transposed(staging + row * 128 + ((piece ^ (row & 7)) << 4),
                                           ptx::pack_bf16(total[4 * j], total[4 * j + 1]),
                                           ptx::pack_bf16(total[4 * j + 2], total[4 * j + 3]));
        }
    } else {
#pragma unroll
        for (int j = 0; j < c.side_n() / 8; j += 2) {
            const int row = warp * 16 + lane / 8 % 2 * 8 + lane % 8, column = j + lane / 16;
            ptx::store_matrices(
                staging + column / 8 * (64 * 128) + row * 128 + (((column % 8) ^ (row & 7)) << 4),
                ptx::pack_bf16(total[4 * j], total[4 * j + 1]),
                ptx::pack_bf16(total[4 * j + 2], total[4 * j + 3]),
                ptx::pack_bf16(total[4 * j + 4], total[4 * j + 5]),
                ptx::pack_bf16(total[4 * j + 6], total[4 * j + 7]));
        }
    }
    ptx::fence_async_shared();
    ptx::named_barrier(1 + group, kWarpgroup);
    for (int slab = 0; slab < c.slabs(); ++slab) {
        const int col = col0 + slab * 64;
        const u32 from = staging + slab * (64 * 128);
        for (int box = first_box; box < boxes && col < n; ++box) {
            const int row = row0 + box * kRows;
            if (row >= w.row_end) break;
            if (c.groups == Groups::kDense || row + kRows <= w.row_end) {
                if (thread == 0) ptx::store_box(d_map, from + box * kRows * 128, col, row);
            } else {
                store_cut_slab(args, from, box * kRows, kRows, row0, w.row_end, col, n, thread);
            }
        }
    }
    if (thread == 0) ptx::store_commit();
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

// total of this block's own columns += those of the others, in ascending order of k.
template <KernelConfig c>
__device__ void add_parts(float (&total)[c.side_n() / 2], Shared<c> shared, int part, int group,
                          int thread) {
    constexpr int kColumns = c.side_n() / 8;
    ptx::cluster_wait();  // the others have begun
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
