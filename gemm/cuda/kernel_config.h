#pragma once
// What the host and the kernels share: the choices that a kernel is compiled for and its arguments.
// Device code includes it too, so it includes nothing.

namespace dsa::gemm::cuda {

// Which rows of A meet which weight.
enum class Groups : int {
    kDense,       // all rows, one weight
    kContiguous,  // rows offsets[g] .. offsets[g + 1] meet weight g
    kMasked,      // rows g * m .. g * m + counts[g] meet weight g
};

constexpr long long ceil_div(long long a, long long b) {
    return (a + b - 1) / b;
}

inline constexpr int kBlockK = 128;  // k of one scale, of one pipeline stage, of one promotion
inline constexpr int kMaxGroups = 512;
inline constexpr int kWarpgroup = 128;       // threads
inline constexpr int kSharedBytes = 232448;  // of a block on sm_90
inline constexpr int kBoxRows = 64;          // of D that one box of its tensor map stores
inline constexpr int kBoxBytes = kBoxRows * 128;
inline constexpr int kFewestStages = 8;  // a launch may leave those behind unused
inline constexpr int kMostStages = 12;
inline constexpr int kNextTiles = 16;  // places for a block's next tiles, in turn
// The loads of a tile are at most a ring ahead of its products, and these two tiles of its stores.
static_assert(kNextTiles >= kMostStages + 4);

// Arrivals of a warpgroup that give a stage back: one a warp. Compute-sanitizer's racecheck knows
// no order through a warp's barrier; for it every lane arrives (DSA_CUDA_RACECHECK of the build).
#ifdef DSA_EVERY_LANE_RELEASES
inline constexpr int kReleases = kWarpgroup;
#else
inline constexpr int kReleases = kWarpgroup / 32;
#endif

// One kernel of the family. D = A B^T in tiles of tile_m rows x tile_n columns. The matrix
// instruction takes 64 rows of one operand (its M side) and 8 to 192 of the other: A on the M side,
// or, for few rows, the weight there (`swapped`).
struct KernelConfig {
    Groups groups = Groups::kDense;
    bool swapped = false;
    int tile_m = 128;
    int tile_n = 128;
    int split_k = 1;      // blocks that share the k of one tile, a cluster (dense)
    int math_groups = 2;  // warpgroups that multiply
    bool f32_out = false;
    // D goes from registers to memory, not through shared memory, which holds more stages instead:
    // better where the weight comes from memory all the time, not where tiles end often.
    bool direct = false;

    constexpr bool operator==(const KernelConfig&) const = default;
    constexpr int side_m() const { return swapped ? tile_n : tile_m; }  // rows on the M side
    constexpr int side_n() const { return swapped ? tile_m : tile_n; }
    constexpr int waves() const { return side_m() / (64 * math_groups); }
    constexpr int threads() const { return kWarpgroup * (math_groups + 1); }
    // The threads that multiply need more registers than an equal share of the block's.
    constexpr bool moves_registers() const {
        return math_groups > 1 && (waves() + 1) * side_n() > 128;
    }
    // Blocks can take tiles as they get ready. With few rows of one weight all tiles cost the same,
    // and there are few.
    constexpr bool dynamic() const {
        return split_k == 1 && (groups != Groups::kDense || moves_registers());
    }
    // Stages of the first tile that are loaded before the block's barriers are made: with few rows
    // the start counts. Rings are longer.
    constexpr int stages_begun() const { return groups == Groups::kDense && !dynamic() ? 2 : 0; }
    // Rows of A that one box of its tensor map loads. Groups end anywhere: boxes without a row are
    // not loaded.
    constexpr int load_rows() const {
        return groups != Groups::kDense && !swapped && tile_m > 64 ? 64 : tile_m;
    }
    // D goes through shared memory and the copy engine, in boxes of 64 x 64.
    constexpr bool stores_boxes() const { return !direct && !f32_out && !swapped && tile_n > 64; }
    constexpr int slabs() const { return tile_n / 64; }  // boxes side by side, then
    // Groups of 8 of side N whose sums one of the blocks that share k finishes, at most.
    constexpr int part_columns() const { return (side_n() / 8 + split_k - 1) / split_k; }

    // Shared memory, in this order.
    constexpr int stage_m_bytes() const { return side_m() * kBlockK; }
    constexpr int stage_n_bytes() const { return side_n() * kBlockK; }
    // A tile's scales of A start at the multiple of 4 rows before it.
    constexpr int scale_rows() const { return tile_m + (groups == Groups::kContiguous ? 4 : 0); }
    constexpr int scale_bytes() const { return (scale_rows() * 4 + 127) / 128 * 128; }
    constexpr int staging_bytes() const {  // of one warpgroup: D, or the sums of other blocks
        const int boxes = stores_boxes() ? waves() * slabs() * kBoxBytes : 0;
        const int turned = swapped && !f32_out ? (tile_m + 15) / 16 * kWarpgroup * 16 : 0;
        const int sums = (split_k - 1) * part_columns() * kWarpgroup * 16;
        const int d = boxes + turned;  // one of them is 0
        return d > sums ? d : sums;
    }
    constexpr int stage_bytes() const {  // with its two barriers
        return stage_m_bytes() + stage_n_bytes() + scale_bytes() + 2 * 8;
    }
    constexpr int other_bytes() const {
        return 1024 + math_groups * (staging_bytes() + 8) + (split_k > 1 ? 8 : 0) +
               (dynamic() ? kNextTiles * 16 : 0) +
               (groups == Groups::kDense ? 0 : 2 * (kMaxGroups + 1) * 4);
    }
    constexpr int stages() const {  // as many as fit
        const int fit = (kSharedBytes - other_bytes()) / stage_bytes();
        return fit > kMostStages ? kMostStages : fit;
    }
    constexpr int shared_bytes() const { return other_bytes() + stages() * stage_bytes(); }
};

struct KernelArgs {
    // First what a kernel begins with, close together: each line of constants is some time on its
    // way.
    int m = 0;  // rows of A: all (dense, contiguous) or room for each group (masked)
    bool begins_first = false;  // the first tile's first stages_begun() stages before all else: all
                                // tiles have so many, and weight_read_once
    const float* a_scale = nullptr;  // [ceil(k / 128)][aligned_m]; masked: a group each
    int aligned_m = 0;
    int n = 0;
    int k = 0;
    int num_groups = 1;
    int tiles_m = 0;           // dense
    int tiles_n = 0;           // of a group
    int expected_tiles_m = 0;  // of most groups, at most band; 0: unknown
    int band = 1;              // tiles along m that are next to one another in the order of tiles
    int stages = 0;  // that are used: fewer than there are only if more than kFewestStages
    bool weight_read_once = false;   // one tile along m: no other needs the same rows of the weight
    const float* b_scale = nullptr;  // [num_groups][ceil(n / 128)][ceil(k / 128)]
    const int* group_rows = nullptr;  // contiguous: offsets [num_groups + 1]; masked: counts
    void* d = nullptr;
    long long ldd = 0;
    int* counter = nullptr;  // of tiles that dynamic() kernels have taken, 0 before and after; or
                             // none: tiles go to the blocks in turn
};

}  // namespace dsa::gemm::cuda
