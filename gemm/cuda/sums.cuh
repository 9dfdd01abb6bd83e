#pragma once
// Sums of a tile on their way from registers to D: added up where several shared the tile's k, then
// stored.

#include "kernel_config.h"
#include "ptx.cuh"
#include "schedule.cuh"
#include "shared.cuh"

namespace dsa::gemm::cuda {

// Named barriers: 1 + group for one warpgroup.
inline constexpr u32 kAllMath = 8;

// fp32, straight from the registers.
template <KernelConfig c>
__device__ void store_f32(const KernelArgs& args, const Work& w, int n,
                          const float (&total)[c.waves()][c.side_n() / 2], int column_begin,
                          int column_end, int group, int thread) {
    float* d = static_cast<float*>(args.d);
#pragma unroll
    for (int wave = 0; wave < c.waves(); ++wave) {
#pragma unroll
        for (int j = 0; j < c.side_n() / 8; ++j) {
            if (j < column_begin || j >= column_end) continue;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int on_m = wave * 64 * c.row_groups() + 64 * group + thread / 32 * 16 +
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

// bf16 of a wave, through `staging`, this wave's part of the warpgroup's staging memory; column
// groups [column_begin, column_end) of d.
template <KernelConfig c>
__device__ void store_bf16(const ptx::TensorMap& d_map, const KernelArgs& args, const Work& w,
                           int n, const float (&total)[c.side_n() / 2], int wave, int column_begin,
                           int column_end, u32 staging, int group, int thread) {
    const int lane = thread % 32, warp = thread / 32;
    constexpr int kRows = c.store_rows();
    const int row0 = c.swapped ? w.row : w.row + wave * 64 * c.row_groups() + 64 * group;
    const int col0 = c.swapped ? w.col + 64 * group : w.col;
    const int first_box = c.swapped ? column_begin : 0, boxes = c.swapped ? column_end : 1;
    if (wave == 0) {  // the stores of the tile before have read it all
        if (thread == 0) ptx::store_wait_read();
        ptx::named_barrier(1 + group, kWarpgroup);
    }
    if constexpr (c.swapped) {
#pragma unroll
        for (int j = 0; j < c.side_n() / 8; ++j) {
            if (j < column_begin || j >= column_end) continue;
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

// The warpgroups that share the k of a tile add their sums; those of the first set have them then.
template <KernelConfig c>
__device__ void add_groups(float (&total)[c.side_n() / 2], Shared<c> shared, int group,
                           int thread) {
    const int k_group = group / c.row_groups();
    const u32 sums = shared.staging(group % c.row_groups()) + thread * 4;
    constexpr int kBytes = c.accumulators() * kWarpgroup * 4;
    if (k_group > 0) {
#pragma unroll
        for (int i = 0; i < c.side_n() / 2; ++i)
            ptx::store_shared(sums + (k_group - 1) * kBytes + i * kWarpgroup * 4, total[i]);
    }
    ptx::named_barrier(kAllMath, c.math_groups * kWarpgroup);
    if (k_group == 0) {
#pragma unroll
        for (int i = 0; i < c.side_n() / 2; ++i) {
#pragma unroll
            for (int g = 1; g < c.k_groups; ++g)
                total[i] += ptx::load_shared(sums + (g - 1) * kBytes + i * kWarpgroup * 4);
        }
    }
}

// ---- sums of blocks that share the k of a tile ----
//
// Each block finishes some columns of d and leaves its sums of the others in L2, where the thread
// of the same number in the block that finishes them polls the values themselves: no flag and no
// fence costs a second trip. A slot that holds nothing is kEmpty, as CudaExec left it and as its
// reader leaves it; a slot has one writer and one reader a launch.

inline constexpr u32 kEmpty =
    0xffffffffu;  // a NaN that no sum is: PTX's fma and add give 0x7fffffff

template <KernelConfig c>
struct Parts {
    static constexpr int kColumns = c.side_n() / 8;
    static constexpr int kEach = static_cast<int>(ceil_div(kColumns, c.split_k));
    static constexpr int kSlots = kColumns * kWarpgroup;  // of four floats, of a warpgroup

    __device__ static constexpr int begin(int part) {
        return part * kEach < kColumns ? part * kEach : kColumns;
    }
    // of this thread; part: whose sums they are
    __device__ static float4* slots(const KernelArgs& args, int part, int group, int thread) {
        const int own = static_cast<int>(blockIdx.x), block = own - own % c.split_k + part;
        return reinterpret_cast<float4*>(args.parts) + (block * c.row_groups() + group) * kSlots +
               thread;
    }
};

// Columns of part kPart: its own sums and those of the others, in ascending order of k.
template <KernelConfig c, int kPart>
__device__ inline void finish_part(const KernelArgs& args, float (&total)[c.side_n() / 2],
                                   int group, int thread) {
    using P = Parts<c>;
    constexpr int kBegin = P::begin(kPart), kCount = P::begin(kPart + 1) - kBegin;
    if constexpr (kCount > 0) {
        float4 sums[c.split_k][kCount];
        bool complete;
        do {
            complete = true;
#pragma unroll
            for (int p = 0; p < c.split_k; ++p) {
                if (p == kPart) continue;
                const float4* from = P::slots(args, p, group, thread) + kBegin * kWarpgroup;
#pragma unroll
                for (int j = 0; j < kCount; ++j) {
                    float4& s = sums[p][j];
                    s = ptx::load_relaxed(from + j * kWarpgroup);
                    complete &= __float_as_uint(s.x) != kEmpty && __float_as_uint(s.y) != kEmpty &&
                                __float_as_uint(s.z) != kEmpty && __float_as_uint(s.w) != kEmpty;
                }
            }
        } while (!complete);
        const float empty = __uint_as_float(kEmpty);
#pragma unroll
        for (int p = 0; p < c.split_k; ++p) {
            float4* from = P::slots(args, p, group, thread) + kBegin * kWarpgroup;
#pragma unroll
            for (int j = 0; j < kCount; ++j) {
                float* own = total + 4 * (kBegin + j);
                if (p == kPart)
                    sums[p][j] = {own[0], own[1], own[2], own[3]};
                else
                    __stcg(from + j * kWarpgroup, float4{empty, empty, empty, empty});
            }
        }
#pragma unroll
        for (int j = 0; j < kCount; ++j) {
            float4 sum = sums[0][j];
#pragma unroll
            for (int p = 1; p < c.split_k; ++p) {
                sum.x += sums[p][j].x;
                sum.y += sums[p][j].y;
                sum.z += sums[p][j].z;
                sum.w += sums[p][j].w;
            }
            float* own = total + 4 * (kBegin + j);
            own[0] = sum.x, own[1] = sum.y, own[2] = sum.z, own[3] = sum.w;
        }
    }
}

template <KernelConfig c, int kPart = 0>
__device__ inline void finish_own_part(const KernelArgs& args, float (&total)[c.side_n() / 2],
                                       int part, int group, int thread) {
    if (part == kPart)
        finish_part<c, kPart>(args, total, group, thread);
    else if constexpr (kPart + 1 < c.split_k)
        finish_own_part<c, kPart + 1>(args, total, part, group, thread);
}

// This block then has the sums of columns [column_begin, column_end) of d.
template <KernelConfig c>
__device__ void add_parts(const KernelArgs& args, float (&total)[c.side_n() / 2], int group,
                          int thread, int& column_begin, int& column_end) {
    using P = Parts<c>;
    const int part = static_cast<int>(blockIdx.x) % c.split_k;
    column_begin = P::begin(part);
    column_end = P::begin(part + 1);
    float4* own = P::slots(args, part, group, thread);
#pragma unroll
    for (int j = 0; j < P::kColumns; ++j) {
        if (j >= column_begin && j < column_end) continue;
        const float* sum = total + 4 * j;
        __stcg(own + j * kWarpgroup, float4{sum[0], sum[1], sum[2], sum[3]});
    }
    finish_own_part<c>(args, total, part, group, thread);
}

}  // namespace dsa::gemm::cuda
