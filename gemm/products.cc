#include "gemm/products.h"

#include <algorithm>

#include "base/check.h"
#include "gemm/cpu/select.h"
#include "gemm/schedule.h"

namespace dsa::gemm {
namespace {

using cpu::kColumnStep;
using cpu::kTileColumns;
using cpu::kTileRows;
using cpu::NtTile;

// Units of work a thread should get for an even split.
constexpr int64_t kUnitsPerThread = 8;

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

int64_t padded(int64_t k) {
    return num_blocks(k) * kScaleBlock;
}

// Where packed rows go, from the first one on.
struct PackedRows {
    uint8_t* values;
    int64_t block_stride;  // elements
    float* scale;          // [rows, blocks of k] of rows that are quantised on the way
    int32_t* start;        // of int8 rows: cpu::PackRows
};

// Of the widest element.
int64_t packed_bytes(int64_t m, int64_t k) {
    return Arena::bytes_for<float>(m * padded(k)) + Arena::bytes_for<float>(m * num_blocks(k)) +
           Arena::bytes_for<int32_t>(m * num_blocks(k));
}

int64_t column_steps(const Task& t) {
    return ceil_div(t.b.n, kColumnStep);
}
int64_t part_rows(const Task& t) {
    return ceil_div(t.m, t.row_parts);
}

void pack(Isa isa, const Activations& a, int64_t m, int64_t k, const PackedRows& to) {
    const bool is_e4m3 = a.dtype == DType::kE4M3;
    const cpu::PackRows rows{m, k, a.data, is_e4m3, a.ld, to.values, to.block_stride, to.start};
    if (a.dtype == DType::kI8) {
        cpu::int8_kernels_for(isa).pack_rows(rows);
    } else {
        cpu::kernels_for(isa).pack_rows(rows);
    }
}

// What a row needs on its way: its SwiGLU product, and its codes.
int64_t row_buffer_bytes(int64_t k) {
    return align_up(k * int64_t{sizeof(bf16)}) + align_up(k);
}

// m rows to packed ones.
void prepare(Isa isa, const Rows& rows, int64_t m, int64_t k, PackedRows to, uint8_t* buffer) {
    if (rows.up == nullptr && !rows.are_quantised_here()) return pack(isa, rows.a, m, k, to);
    const cpu::Kernels& kernels = cpu::kernels_for(isa);
    auto* product = reinterpret_cast<uint16_t*>(buffer);
    uint8_t* codes = buffer + align_up(k * int64_t{sizeof(bf16)});
    for (int64_t i = 0; i < m; ++i) {
        const auto* x = static_cast<const uint16_t*>(rows.a.data) + i * rows.a.ld;
        if (rows.up != nullptr) {
            kernels.silu_mul(x, &rows.up[i * rows.a.ld].bits, k, product);
            x = product;
        }
        Activations row{x, rows.form, k, nullptr, 0, 0};
        if (rows.form == DType::kE4M3) {
            kernels.quantize_row(x, k, rows.scale_format == ScaleFormat::kUe8m0, codes, to.scale);
            row.data = codes;
        } else if (rows.form == DType::kI8) {
            kernels.quantize_row_int8(x, k, reinterpret_cast<int8_t*>(codes), to.scale);
            row.data = codes;
        }
        pack(isa, row, 1, k, to);
        to.values += kScaleBlock * rows.element_size;
        to.scale += num_blocks(k);
        ++to.start;
    }
}

// The kernel for what the rows and the weight are.
void run_kernel(Isa isa, DType a, DType b, const NtTile& tile) {
    if (a == DType::kI8) return cpu::int8_kernels_for(isa).nt(tile);
    const cpu::Kernels& kernels = cpu::kernels_for(isa);
    (b == DType::kE4M3 ? kernels.nt_e4m3 : kernels.nt_bf16)(tile);
}

// The row that a thread has made ready for itself, which several tasks or calls may share.
struct OwnRow {
    const void* a = nullptr;
    const bf16* up = nullptr;
    DType form = DType::kBF16;
    ScaleFormat scale_format = ScaleFormat::kUe8m0;
    int64_t k = 0;
    bool operator==(const OwnRow&) const = default;
};

// What a thread has for itself, and what is there.
struct alignas(64) ThreadScratch {
    uint8_t* row_buffer;  // own_row_bytes()
    OwnRow row;
    uint8_t* tile;  // cpu::nt_scratch_bytes()
    cpu::ArrangedRows arranged;
};

// Rows row0 .. row0 + m and columns col0 .. col0 + n of the product.
void run_tile(Isa isa, const Task& t, int64_t row0, int64_t m, int64_t col0, int64_t n,
              ThreadScratch& own) {
    const Rows rows = t.rows.from(row0, t.b.k);
    NtTile tile{};
    tile.m = m;
    tile.n = n;
    tile.k = t.b.k;
    tile.a = rows.packed;
    tile.a_block_stride = rows.block_stride;
    tile.a_scale = rows.a.scale;
    tile.a_scale_stride_m = rows.a.scale_stride_m;
    tile.a_scale_stride_k = rows.a.scale_stride_k;
    if (rows.are_quantised_here()) {
        tile.a_scale = rows.own_scale;
        tile.a_scale_stride_m = num_blocks(t.b.k);
        tile.a_scale_stride_k = 1;
    }
    tile.a_start = rows.start;
    tile.b = static_cast<const uint8_t*>(t.b.data) + col0 * t.b.k * size_of(t.b.dtype);
    tile.ldb = t.b.k;
    tile.b_scale_ld = num_blocks(t.b.k);
    if (t.b.is_fp8()) tile.b_scale = t.b.scale_inv + col0 / kScaleBlock * tile.b_scale_ld;
    tile.d = static_cast<uint8_t*>(t.d.data) + (row0 * t.d.ld + col0) * size_of(t.d.dtype);
    tile.ldd = t.d.ld;
    tile.d_is_f32 = t.d.dtype == DType::kF32;
    tile.scratch = own.tile;
    tile.arranged = &own.arranged;
    tile.prefetch_into_l2 = cpu_prefers_l2_prefetches();
    tile.follows_columns = cpu_follows_runs();
    run_kernel(isa, rows.form, t.b.dtype, tile);
}

// Columns of a tile that starts at `col`: scale blocks are counted from the tile's first column, so
// a tile that starts inside of one ends with it.
int64_t tile_columns(int64_t col, int64_t end) {
    const int64_t in_block = col % kScaleBlock;
    return std::min(end - col, in_block == 0 ? kTileColumns : kScaleBlock - in_block);
}

// Rows of each tile of m rows (none where a part has none): as even as can be.
int64_t tile_rows(Isa isa, DType form, int64_t m) {
    const int64_t most = form == DType::kI8 ? kTileRows : cpu::kernels_for(isa).tile_rows;
    return ceil_div(m, std::max<int64_t>(1, ceil_div(m, most)));
}

// The only row of a task, packed at `buffer` unless it is there already.
Rows packed_row(Isa isa, const Task& t, uint8_t* buffer, OwnRow& own) {
    auto* scale = reinterpret_cast<float*>(buffer + Arena::bytes_for<float>(padded(t.b.k)));
    auto* start = reinterpret_cast<int32_t*>(reinterpret_cast<uint8_t*>(scale) +
                                             Arena::bytes_for<float>(num_blocks(t.b.k)));
    const Rows& rows = t.rows;
    const OwnRow wanted{rows.a.data, rows.up, rows.form, rows.scale_format, t.b.k};
    if (own != wanted) {
        prepare(isa, rows, 1, t.b.k, {buffer, kScaleBlock, scale, start},
                buffer + packed_bytes(1, t.b.k));
        own = wanted;
    }
    Rows packed = rows;
    packed.packed = buffer;
    packed.own_scale = scale;
    packed.start = start;
    packed.block_stride = kScaleBlock;
    return packed;
}

// Units first .. last of a task; they are ordered by row part, then by columns.
void run_units(Isa isa, Task t, int64_t first, int64_t last, ThreadScratch& own) {
    if (t.rows.packed == nullptr) t.rows = packed_row(isa, t, own.row_buffer, own.row);
    const int64_t steps = column_steps(t);
    while (first < last) {
        const int64_t part = first / steps;
        const int64_t stop = std::min(last, (part + 1) * steps);
        const int64_t row_begin = part * part_rows(t);
        const int64_t row_end = std::min(t.m, row_begin + part_rows(t));
        const int64_t rows = tile_rows(isa, t.rows.form, row_end - row_begin);
        const int64_t col_end = std::min(t.b.n, (stop - part * steps) * kColumnStep);
        for (int64_t col = (first - part * steps) * kColumnStep; col < col_end;) {
            const int64_t n = tile_columns(col, col_end);
            for (int64_t row = row_begin; row < row_end; row += rows)
                run_tile(isa, t, row, std::min(rows, row_end - row), col, n, own);
            col += n;
        }
        first = stop;
    }
}

// A row of its own with what it needs on its way.
int64_t own_row_bytes(int64_t k) {
    return packed_bytes(1, k) + row_buffer_bytes(k);
}
int64_t thread_bytes(int64_t k) {
    return own_row_bytes(k) + align_up(cpu::nt_scratch_bytes(k));
}

}  // namespace

Rows Rows::from_packed(int64_t packed_row, int64_t first, int64_t k) const {
    Rows r = *this;
    r.a.data = static_cast<const uint8_t*>(a.data) + first * a.ld * size_of(a.dtype);
    if (a.scale != nullptr) r.a.scale += first * a.scale_stride_m;
    if (up != nullptr) r.up += first * a.ld;
    if (packed != nullptr) r.packed += packed_row * kScaleBlock * element_size;
    if (own_scale != nullptr) r.own_scale += packed_row * num_blocks(k);
    if (start != nullptr) r.start += packed_row;
    return r;
}

Rows pack_rows(Exec& exec, int64_t m, int64_t k, const Rows& rows) {
    const RowRange all{0, m};
    return pack_ranges(exec, {&all, 1}, k, rows);
}

Rows pack_ranges(Exec& exec, std::span<const RowRange> ranges, int64_t k, const Rows& rows) {
    int64_t m = 0;
    int64_t most = 0;
    for (const RowRange& r : ranges) {
        m += r.count;
        most = std::max(most, r.count);
    }
    Rows packed = rows;
    packed.element_size = rows.form == DType::kI8 ? cpu::int8_kernels_for(exec.isa).element_size
                                                  : cpu::kernels_for(exec.isa).element_size;
    if (most <= 1) return packed;
    auto* out = exec.scratch.alloc<uint8_t>(m * padded(k) * packed.element_size);
    auto* scale = exec.scratch.alloc<float>(m * num_blocks(k));
    auto* start = exec.scratch.alloc<int32_t>(m * num_blocks(k));
    packed.packed = out;
    packed.own_scale = scale;
    packed.start = start;
    packed.block_stride = m * kScaleBlock;
    const Arena::Scope scope(exec.scratch);
    auto* buffers = exec.scratch.alloc<uint8_t>(exec.pool.num_threads() * row_buffer_bytes(k));
    exec.pool.parallel_for(m, [&](int64_t begin, int64_t end, int thread) {
        int64_t before = 0;
        for (const RowRange& r : ranges) {  // the part of each range in packed rows begin .. end
            const int64_t from = std::max(begin, before);
            const int64_t to = std::min(end, before + r.count);
            if (from < to) {
                Rows part = rows.from(r.first + from - before, k);
                part.element_size = packed.element_size;
                prepare(exec.isa, part, to - from, k,
                        {out + from * kScaleBlock * packed.element_size, packed.block_stride,
                         scale + from * num_blocks(k), start + from},
                        buffers + thread * row_buffer_bytes(k));
            }
            before += r.count;
        }
    });
    return packed;
}

int64_t pack_rows_bytes(int64_t m, int64_t k, int num_threads) {
    return packed_bytes(m, k) + Arena::bytes_for<uint8_t>(num_threads * row_buffer_bytes(k));
}

int64_t run_tasks_bytes(int64_t k, int num_threads) {
    return Arena::bytes_for<uint8_t>(num_threads * thread_bytes(k)) +
           Arena::bytes_for<ThreadScratch>(num_threads) + for_each_range_bytes(num_threads);
}

void run_tasks(Exec& exec, std::span<Task> tasks) {
    int64_t k = 0;
    int64_t steps = 0;
    for (const Task& t : tasks) {
        k = std::max(k, t.b.k);
        steps += column_steps(t);
    }
    const int64_t parts = ceil_div(kUnitsPerThread * exec.pool.num_threads(), steps);
    for (Task& t : tasks) t.row_parts = std::clamp<int64_t>(t.m, 1, parts);
    const Arena::Scope scope(exec.scratch);
    const int64_t scratch_bytes = thread_bytes(k);
    auto* scratch = exec.scratch.alloc<uint8_t>(exec.pool.num_threads() * scratch_bytes);
    auto* own = exec.scratch.alloc<ThreadScratch>(exec.pool.num_threads());
    for (int i = 0; i < exec.pool.num_threads(); ++i) {
        uint8_t* const start = scratch + i * scratch_bytes;
        own[i] = {start, {}, start + own_row_bytes(k), {}};
    }
    for_each_range(
        exec, static_cast<int64_t>(tasks.size()),
        [&](int64_t i) {
            const Task& t = tasks[static_cast<size_t>(i)];
            if (t.m == 0) return TaskSize{0, 0};
            return TaskSize{t.row_parts * column_steps(t), part_rows(t) * t.b.k};
        },
        [&](int64_t i, int64_t first, int64_t last, int thread) {
            run_units(exec.isa, tasks[static_cast<size_t>(i)], first, last, own[thread]);
        });
}

void check_weight(const char* op, const Weight& b) {
    DSA_CHECK(b.n > 0 && b.k > 0 && b.data != nullptr, op, ": weight [", b.n, ", ", b.k,
              "], expected a non-empty one");
    DSA_CHECK(b.dtype == DType::kE4M3 || b.dtype == DType::kBF16, op, ": weight of type ",
              to_string(b.dtype), ", expected F8_E4M3 or BF16");
    DSA_CHECK(!b.is_fp8() || b.scale_inv != nullptr, op, ": FP8 weight without scales");
}

void check_output(const char* op, const Output& d, int64_t n) {
    DSA_CHECK(d.dtype == DType::kBF16 || d.dtype == DType::kF32, op, ": output of type ",
              to_string(d.dtype), ", expected BF16 or F32");
    DSA_CHECK(d.ld >= n, op, ": output row stride ", d.ld, ", expected at least n = ", n);
}

}  // namespace dsa::gemm
