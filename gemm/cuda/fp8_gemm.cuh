#pragma once
// The kernel family: D = A B^T, e4m3 operands, fp32 scales 1 x 128 (A) and 128 x 128 (B).
//
// A block is one producer warpgroup and warpgroups that multiply. One lane of the producer starts
// all loads; with A on side M its next warps store what the others have staged (sums.cuh). Stages
// of 128 of k go round a ring in shared memory. Each 128 of k is one chain in the tensor core, then
// total = fma(chain, scale_a * scale_b, total), as on the CPU. Blocks are persistent; the loads of
// the next tile run while a tile is stored.

#include "begin.cuh"
#include "kernel_config.h"
#include "loads.cuh"
#include "ptx.cuh"
#include "schedule.cuh"
#include "shared.cuh"
#include "sums.cuh"
#include "wgmma.cuh"

namespace dsa::gemm::cuda {

// ---- products ----

// The weight's scales of a part of a tile's k: lane l of each warp holds that of the part's block
// l, for up to 32 at a time.
template <KernelConfig c>
class WeightScales {
  public:
    static constexpr int kCount = c.swapped || kBlockK % c.tile_n == 0 ? 1 : (c.tile_n + 127) / 128;

    __device__ WeightScales(const KernelArgs& args, const Work& w, int n, int k_blocks) {
        const int blocks_n = (n + kBlockK - 1) / kBlockK;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            const int block = min(w.col / kBlockK + i, blocks_n - 1);
            row_[i] =
                args.b_scale + (static_cast<long long>(w.group) * blocks_n + block) * k_blocks;
        }
        part_ = w.part;
        end_ = w.part_blocks;
        load(0);
    }
    __device__ void get(int kb, float (&scale)[kCount]) {
        if (kb - first_ >= 32) load(first_ + 32);
#pragma unroll
        for (int i = 0; i < kCount; ++i) scale[i] = __shfl_sync(0xffffffffu, lane_[i], kb - first_);
    }

  private:
    __device__ void load(int kb) {
        first_ = kb;
        const int mine = kb + static_cast<int>(threadIdx.x % 32);
#pragma unroll
        for (int i = 0; i < kCount; ++i)
            lane_[i] = mine < end_ ? __ldg(row_[i] + block_of_k<c>(part_, mine)) : 0.0f;
    }

    const float* row_[kCount];
    float lane_[kCount];
    int part_, first_, end_;
};

// This warp has read a stage: tells the producer.
template <KernelConfig c>
__device__ inline void release(Shared<c> shared, int stage) {
#ifdef DSA_EVERY_LANE_RELEASES
    ptx::barrier_arrive(shared.empty(stage));
#else
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(shared.empty(stage));
#endif
}

// The scales that one stage's promotions need, in registers.
template <KernelConfig c>
struct StageScales {
    float weight[WeightScales<c>::kCount];
    float a[c.swapped ? 1 : c.waves()][2];  // of rows r and r + 8 of each wave

    // Of a stage that is there. offset: bytes to A's scale of the thread's first row.
    __device__ void load(Shared<c> shared, int stage, WeightScales<c>& weights, int kb,
                         u32 offset) {
        weights.get(kb, weight);
        if constexpr (!c.swapped) {
#pragma unroll
            for (int wave = 0; wave < c.waves(); ++wave) {
                const u32 at = shared.scale(stage) + offset + wave * 64 * c.math_groups * 4;
                a[wave][0] = ptx::load_shared(at);
                a[wave][1] = ptx::load_shared(at + 8 * 4);
            }
        }
    }
};

// total += chain * scales, or, of a tile's first chain, total = chain * scales. d as Wgmma lays it
// out.
template <KernelConfig c, bool kFirst>
__device__ inline void promote(const float (&chain)[c.side_n() / 2], float (&total)[c.side_n() / 2],
                               u32 scale, int thread, const StageScales<c>& scales, int wave,
                               int columns_of_first) {
    constexpr int kColumns = c.side_n() / 8;
    const auto add = [&](int i, float scale) {
        total[i] = fmaf(chain[i], scale, kFirst ? 0.0f : total[i]);
    };
    if constexpr (c.swapped) {  // columns of D's transpose are rows of A
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
            const u32 at = scale + (8 * j + thread % 4 * 2) * 4;
            float2 s;
            if constexpr (c.groups == Groups::kContiguous)
                s = {ptx::load_shared(at), ptx::load_shared(at + 4)};
            else
                s = ptx::load_shared2(at);
            s.x *= scales.weight[0];
            s.y *= scales.weight[0];
            add(4 * j + 0, s.x);
            add(4 * j + 1, s.y);
            add(4 * j + 2, s.x);
            add(4 * j + 3, s.y);
        }
    } else {
        float s0[WeightScales<c>::kCount], s1[WeightScales<c>::kCount];
#pragma unroll
        for (int i = 0; i < WeightScales<c>::kCount; ++i) {
            s0[i] = scales.a[wave][0] * scales.weight[i];
            s1[i] = scales.a[wave][1] * scales.weight[i];
        }
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
            float t0 = s0[0], t1 = s1[0];
            if constexpr (WeightScales<c>::kCount == 2) {
                // Tiles start at a multiple of 128 or in its middle: of 192 columns 128 or 64 lie
                // in the first block.
                if (j >= 16 || (j >= 8 && columns_of_first == 64)) {
                    t0 = s0[1];
                    t1 = s1[1];
                }
            }
            add(4 * j + 0, t0);
            add(4 * j + 1, t0);
            add(4 * j + 2, t1);
            add(4 * j + 3, t1);
        }
    }
}

// All of this block's k of a tile, in its first kWaves waves. Whatever can happens while the tensor
// core works: scales are fetched, and meanwhile() is called once. Little stands between a promotion
// and the next product. A stage is given back before its sums are promoted: later is slower
// (measured).
template <KernelConfig c, int kWaves, typename Meanwhile>
__device__ void multiply(float (&total)[c.waves()][c.side_n() / 2], const Work& w,
                         WeightScales<c>& weights, Shared<c> shared, Ring<c>& ring, int group,
                         int thread, const Meanwhile& meanwhile) {
    const int row = 64 * group + thread / 32 * 16 + thread % 32 / 4;  // of d[0] on the M side
    const int columns_of_first = kBlockK - w.col % kBlockK;
    const u32 shift = c.groups == Groups::kContiguous ? w.row % 4 * 4 : 0;
    const u32 x0 = operand_start(shared.side_m(0) + 64 * group * kBlockK),
              y0 = operand_start(shared.side_n(0));
    StageScales<c> scales;
    u32 x = x0 + ring.stage * (c.stage_m_bytes() >> 4);
    u32 y = y0 + ring.stage * (c.stage_n_bytes() >> 4);
    const auto stage = [&]<bool kFirst>(int kb) {
        Ring<c> next = ring;
        next.advance();
        StageScales<c> next_scales;
#pragma unroll
        for (int wave = 0; wave < kWaves; ++wave) {
            float chain[c.side_n() / 2];
            const u32 x_wave = x + (wave * 64 * c.math_groups * kBlockK >> 4);
            pin(chain);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < kBlockK / 32; ++i)
                Wgmma<c.side_n()>::multiply(chain, operand_descriptor(x_wave + 2 * i),
                                            operand_descriptor(y + 2 * i), i > 0);
            wgmma_commit();
            if (kFirst && wave == 0) {
                scales.load(shared, ring.stage, weights, kb, shift + row * 4);
                meanwhile();
            }
            if (wave == kWaves - 1 && kb + 1 < w.part_blocks) {
                ptx::barrier_wait(shared.full(next.stage), next.phase);
                next_scales.load(shared, next.stage, weights, kb + 1, shift + row * 4);
                x = x0 + next.stage * (c.stage_m_bytes() >> 4);
                y = y0 + next.stage * (c.stage_n_bytes() >> 4);
                asm volatile("" : "+r"(x), "+r"(y));  // now, not between promotion and product
            }
            pin(chain);
            wgmma_wait<0>();
            pin(chain);
            // A's scales are in registers; with the operands' roles swapped they are read below.
            if (!c.swapped && wave == kWaves - 1) release<c>(shared, ring.stage);
            promote<c, kFirst>(chain, total[wave], shared.scale(ring.stage) + shift, thread, scales,
                               wave, columns_of_first);
        }
        if constexpr (c.swapped) release<c>(shared, ring.stage);
        ring = next;
        scales = next_scales;
    };
    ptx::barrier_wait(shared.full(ring.stage), ring.phase);
    stage.template operator()<true>(0);
    for (int kb = 1; kb < w.part_blocks; ++kb) stage.template operator()<false>(kb);
}

// A tile in which this warpgroup has no rows.
template <KernelConfig c>
__device__ void skip(const Work& w, Shared<c> shared, Ring<c>& ring) {
    for (int kb = 0; kb < w.part_blocks; ++kb, ring.advance()) {
        ptx::barrier_wait(shared.full(ring.stage), ring.phase);
        release<c>(shared, ring.stage);
    }
}

// multiply() with the waves that have rows: at a group's end the grain is 64 rows, not a tile.
template <KernelConfig c, typename Meanwhile>
__device__ void multiply_rows(float (&total)[c.waves()][c.side_n() / 2], const Work& w,
                              WeightScales<c>& weights, Shared<c> shared, Ring<c>& ring, int group,
                              int thread, const Meanwhile& meanwhile) {
    if constexpr (c.swapped || c.groups == Groups::kDense) {
        multiply<c, c.waves()>(total, w, weights, shared, ring, group, thread, meanwhile);
    } else {
        const int rows = w.row_end - w.row - 64 * group;  // of this warpgroup, and of those behind
        if (rows > (c.waves() - 1) * 64 * c.math_groups) {
            multiply<c, c.waves()>(total, w, weights, shared, ring, group, thread, meanwhile);
        } else if (c.waves() > 1 && rows > 0) {
            multiply<c, 1>(total, w, weights, shared, ring, group, thread, meanwhile);
        } else {
            skip<c>(w, shared, ring);
            meanwhile();
        }
    }
}

template <KernelConfig c>
__device__ void consume(const KernelArgs& args, int n, int k_blocks, Schedule<c> schedule,
                        Shared<c> shared, int part) {
    // Through a shuffle the compiler sees that it is the same in all lanes: operand addresses then
    // stay in uniform registers.
    const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup, 0) - 1;
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    const Columns columns = columns_of<c>(part);
    Ring<c> ring(args);
    Work w, next;
    bool more = schedule.next(w);
    if (!more) return;
    WeightScales<c> weights(args, w, n, k_blocks);
    if constexpr (c.split_k > 1) ptx::cluster_wait();  // while the first loads are on their way
    for (int tile = 0;; ++tile) {
        float total[c.waves()][c.side_n() / 2];
        multiply_rows<c>(total, w, weights, shared, ring, group, thread, [&] {
            if constexpr (!c.dynamic()) more = schedule.next(next);
        });
        if constexpr (c.dynamic()) more = next_told<c>(shared, tile, next = w);
        if (more)
            weights =
                WeightScales<c>(args, next, n, k_blocks);  // on their way while this tile is stored
        if constexpr (c.split_k > 1) add_parts<c>(total[0], shared, part, group, thread);
        if constexpr (c.f32_out)
            store_f32<c>(args, w, n, total, columns, group, thread);
        else if constexpr (c.swapped)
            store_transposed<c>(args, w, n, total[0], columns, shared.staging(group), group,
                                thread);
        else if constexpr (!c.stores_boxes())
            store_columns<c>(args, w, n, total, columns, group, thread);
        else
            stage_tile<c>(total, shared, group, thread, tile % 2);
        if (!more) break;
        w = next;
    }
}

// ---- the kernel ----

inline constexpr u32 kBegun = 0;  // named barrier: barriers are made, tiles are counted

// Registers of a thread that loads, and of one that multiplies: what is left of the block's.
inline constexpr int kProducerRegisters = 40;
inline constexpr int kMathRegisters = 232;

template <KernelConfig c>
__device__ inline void run(const ptx::TensorMap& a_map, const ptx::TensorMap& b_map,
                           const ptx::TensorMap& d_map, const KernelArgs& args,
                           unsigned char* memory) {
    static_assert(!c.stores_boxes() || c.split_k == 1, "boxes are stored as whole tiles");
    const Shared<c> shared{(ptx::shared_address(memory) + 1023) / 1024 * 1024};
    if constexpr (c.stages_begun() > 0)
        if (threadIdx.x < 32) begin_first<c>(a_map, b_map, args, shared);
    if constexpr (c.groups != Groups::kDense)
        if (threadIdx.x < 32) prefetch_expected<c>(b_map, args);

    const int n = args.n;
    const int k_blocks = (args.k + kBlockK - 1) / kBlockK;
    const int part = static_cast<int>(blockIdx.x) % c.split_k;  // its rank in the cluster
    const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
    // Each warp prepares something else for the first load.
    int* first_tile = nullptr;
    int* first_row = nullptr;
    if constexpr (c.groups != Groups::kDense) {
        first_tile =
            reinterpret_cast<int*>(memory + (shared.groups() - ptx::shared_address(memory)));
        first_row = first_tile + kMaxGroups + 1;
        if (warp == 1) count_tiles<c>(args, first_tile, first_row);
    }
    make_barriers<c>(shared, part);
    if constexpr (c.split_k > 1) ptx::cluster_arrive();  // consume() waits
    if constexpr (c.groups != Groups::kDense) ptx::named_barrier(kBegun, c.threads());
    Schedule<c> schedule(args, k_blocks, first_tile, first_row,
                         static_cast<int>(blockIdx.x) / c.split_k,
                         static_cast<int>(gridDim.x) / c.split_k, part);
    if (threadIdx.x < kWarpgroup) {
        Work first;
        const bool any = warp == 0 && schedule.next(first);
        if constexpr (c.groups == Groups::kDense) ptx::named_barrier(kBegun, c.threads());
        if constexpr (c.moves_registers()) ptx::fewer_registers<kProducerRegisters>();
        if (warp == 0) {
            if (ptx::elect_lane())
                produce<c>(a_map, b_map, args, n, k_blocks, schedule, shared, first, any);
        } else if constexpr (c.stores_boxes()) {
            if (warp <= c.math_groups) store_tiles<c>(d_map, args, n, schedule, shared, warp - 1);
        }
    } else {
        // Not one barrier for both: the compiler would have all warps look for the tile before it.
        if constexpr (c.groups == Groups::kDense) ptx::named_barrier(kBegun, c.threads());
        if constexpr (c.moves_registers()) ptx::more_registers<kMathRegisters>();
        consume<c>(args, n, k_blocks, schedule, shared, part);
    }
}

}  // namespace dsa::gemm::cuda
