// Products over slices of one weight: the two halves of MLA's kv_b, a batch a head.

#include <algorithm>

#include "base/check.h"
#include "gemm/cpu/select.h"
#include "gemm/gemm.h"

namespace dsa::gemm {
namespace {

void check(const char* op, const BatchedGemmParams& p, int64_t rows_of_b, int64_t columns) {
    DSA_CHECK(p.batches >= 1 && p.m >= 1 && p.n >= 1 && p.k >= 1, op, ": ", p.batches,
              " batches of [", p.m, ", ", p.n, ", ", p.k, "], expected all >= 1");
    DSA_CHECK(p.b_row % kScaleBlock == 0 && p.b_row_stride % kScaleBlock == 0, op,
              ": slices start at row ", p.b_row, " + i * ", p.b_row_stride,
              ", expected multiples of ", kScaleBlock);
    DSA_CHECK(p.b.k == columns && p.b_row + (p.batches - 1) * p.b_row_stride + rows_of_b <= p.b.n,
              op, ": slices of ", rows_of_b, " rows and ", columns,
              " columns do not lie in a weight [", p.b.n, ", ", p.b.k, "]");
    DSA_CHECK(!p.b.is_fp8() || p.b.scale_inv != nullptr, op, ": FP8 weight without scales");
}

const uint8_t* weight_at(const Weight& b, int64_t row, int64_t column) {
    return static_cast<const uint8_t*>(b.data) + (row * b.k + column) * size_of(b.dtype);
}

// Scratch of an nt tile: the kernel's, and its rows.
int64_t tile_bytes(int64_t k) {
    return cpu::nt_scratch_bytes(k) +
           cpu::kTileRows * num_blocks(k) * kScaleBlock * static_cast<int64_t>(sizeof(float));
}

// Tiles of `tile_n` columns x blocks of kTileRows rows of every batch: body(batch, row, col,
// scratch).
template <typename Body>
void for_each_tile(Exec& exec, const BatchedGemmParams& p, int64_t tile_n, int64_t scratch_bytes,
                   const Body& body) {
    const Arena::Scope scope(exec.scratch);
    scratch_bytes = align_up(scratch_bytes);
    auto* scratch = exec.scratch.alloc<uint8_t>(exec.pool.num_threads() * scratch_bytes);
    const int64_t row_blocks = (p.m + cpu::kTileRows - 1) / cpu::kTileRows;
    const int64_t tiles = row_blocks * ((p.n + tile_n - 1) / tile_n);
    exec.pool.parallel_for(p.batches * tiles, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t tile = unit % tiles;
            body(unit / tiles, tile % row_blocks * cpu::kTileRows, tile / row_blocks * tile_n,
                 scratch + thread * scratch_bytes);
        }
    });
}

}  // namespace

void batched_gemm_nt(Exec& exec, const BatchedGemmParams& p) {
    check("batched_gemm_nt", p, p.n, p.k);
    using namespace cpu;
    const Kernels& kernels = kernels_for(exec.isa);
    for_each_tile(exec, p, kScaleBlock, tile_bytes(p.k),
                  [&](int64_t batch, int64_t row, int64_t col, uint8_t* scratch) {
                      const int64_t b_row = p.b_row + batch * p.b_row_stride + col;
                      NtTile t{};
                      t.m = std::min(kTileRows, p.m - row);
                      t.n = std::min(kScaleBlock, p.n - col);
                      t.k = p.k;
                      t.a = scratch + nt_scratch_bytes(p.k);
                      t.a_block_stride = t.m * kScaleBlock;
                      const bf16* a = p.a + batch * p.a_stride + row * p.lda;
                      kernels.pack_rows({t.m, p.k, a, false, p.lda, scratch + nt_scratch_bytes(p.k),
                                         t.a_block_stride, nullptr});
                      t.b = weight_at(p.b, b_row, 0);
                      t.ldb = p.b.k;
                      if (col + t.n == p.n && batch + 1 < p.batches)
                          t.b_next = weight_at(p.b, p.b_row + (batch + 1) * p.b_row_stride, 0);
                      if (p.b.is_fp8())
                          t.b_scale = p.b.scale_inv + b_row / kScaleBlock * num_blocks(p.k);
                      t.d = p.d + batch * p.d_stride + row * p.ldd + col;
                      t.ldd = p.ldd;
                      ArrangedRows arranged;
                      t.scratch = scratch;
                      t.arranged = &arranged;
                      t.prefetch_into_l2 = cpu_prefers_l2_prefetches();
                      t.follows_columns = cpu_follows_runs();
                      (p.b.is_fp8() ? kernels.nt_e4m3 : kernels.nt_bf16)(t);
                  });
}

void batched_gemm_nn(Exec& exec, const BatchedGemmParams& p) {
    check("batched_gemm_nn", p, p.k, p.n);
    DSA_CHECK(p.k == cpu::kNnK, "batched_gemm_nn: k is ", p.k, ", expected ", cpu::kNnK);
    using namespace cpu;
    const Kernels& kernels = kernels_for(exec.isa);
    for_each_tile(exec, p, kTileNn, kNnPanelBytes,
                  [&](int64_t batch, int64_t row, int64_t col, uint8_t* panel) {
                      const int64_t b_row = p.b_row + batch * p.b_row_stride;
                      NnTile t{};
                      t.m = std::min(kTileRows, p.m - row);
                      t.n = std::min(kTileNn, p.n - col);
                      t.a = &p.a[batch * p.a_stride + row * p.lda].bits;
                      t.lda = p.lda;
                      t.b = weight_at(p.b, b_row, col);
                      t.ldb = p.b.k;
                      if (p.b.is_fp8())
                          t.b_scale = p.b.scale_inv + b_row / kScaleBlock * num_blocks(p.n) +
                                      col / kScaleBlock;
                      t.d = &p.d[batch * p.d_stride + row * p.ldd + col].bits;
                      t.ldd = p.ldd;
                      t.panel = panel;
                      t.prefetch_into_l2 = cpu_prefers_l2_prefetches();
                      (p.b.is_fp8() ? kernels.nn_e4m3 : kernels.nn_bf16)(t);
                  });
}

int64_t batched_gemm_scratch_bytes(int64_t k, int num_threads) {
    const int64_t panel = std::max(tile_bytes(k), cpu::kNnPanelBytes);
    return Arena::bytes_for<uint8_t>(num_threads * align_up(panel));
}

}  // namespace dsa::gemm
