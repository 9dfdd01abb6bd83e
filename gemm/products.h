#pragma once
// What the public operators of this module run on: rows of A packed for the kernels, and products
// of them cut into tiles over the threads. Private to the module's .cc files.

#include <cstdint>
#include <span>

#include "base/exec.h"
#include "gemm/gemm.h"

namespace dsa::gemm {

// Rows of A on their way to the kernels: as the caller has them, or bf16 rows that become
// silu(a) * up, or are quantised, while they are packed.
struct Rows {
    Activations a;
    const bf16* up = nullptr;   // rows as those of a; nullptr: a alone
    DType form = DType::kBF16;  // what the kernels meet: a.dtype, or kE4M3 or kI8 of bf16 rows
    ScaleFormat scale_format = ScaleFormat::kUe8m0;  // of rows quantised to e4m3
    // Set by pack_rows:
    const uint8_t* packed = nullptr;   // nullptr: to be packed by each thread for itself
    int64_t block_stride = 0;          // elements from a block of k to the next
    int64_t element_size = 0;          // bytes of a packed value
    const float* own_scale = nullptr;  // [rows, blocks of k] of rows quantised on the way
    const int32_t* start = nullptr;    // of int8 rows: cpu::PackRows

    static Rows of(const Activations& a) {
        Rows r;
        r.a = a;
        r.form = a.dtype;
        return r;
    }
    bool are_quantised_here() const { return form != a.dtype; }
    // From row `first` on; where packed rows were gathered, from packed row `packed_row` on.
    Rows from(int64_t first, int64_t k) const { return from_packed(first, first, k); }
    Rows from_packed(int64_t packed_row, int64_t first, int64_t k) const;
};

struct RowRange {
    int64_t first, count;
};

// Packed by all threads, from the context's scratch. Where no range has more than one row they are
// left to the threads that need them: that costs less than a parallel region.
Rows pack_rows(Exec& exec, int64_t m, int64_t k, const Rows& rows);
// As pack_rows, for the rows of all ranges, one behind another.
Rows pack_ranges(Exec& exec, std::span<const RowRange> ranges, int64_t k, const Rows& rows);
int64_t pack_rows_bytes(int64_t m, int64_t k, int num_threads);

// One product: D = rows B^T.
struct Task {
    int64_t m;
    Rows rows;
    Weight b;
    Output d;
    // A unit of work is a part of the rows x some columns; rows are cut for the sake of many
    // threads only, since each part widens the weight anew. Set by run_tasks.
    int64_t row_parts = 1;
};

// All of them in one parallel region. Tasks without rows are skipped.
void run_tasks(Exec& exec, std::span<Task> tasks);
int64_t run_tasks_bytes(int64_t k, int num_threads);

void check_weight(const char* op, const Weight& b);
void check_output(const char* op, const Output& d, int64_t n);

}  // namespace dsa::gemm
