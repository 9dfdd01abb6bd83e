#pragma once
// What an indexer kernel file provides for its ISA. Raw pointers only (see base/avx512.h).

#include <cstdint>

namespace dsa::indexer::cpu {

inline constexpr int64_t kDim = 128;  // of a head vector
inline constexpr int64_t kPageKeys = 64;

// logits[r, s] = s_k[s] * sum_h w[r, h] * max(0, q8[r, h] . k8[s]) for the 64 keys of a page, heads
// ascending. Each value has one order of operations, whatever rows and page it is computed with.
struct LogitsTile {
    int64_t rows, heads;
    const uint8_t* q8;    // e4m3 [rows, heads, 128]
    const float* w;       // [rows, heads]
    const uint8_t* page;  // e4m3 [64, 128], then f32 [64]
    float* logits;        // [rows, ld], 64 values a row are written
    int64_t ld;
    void* scratch;  // logits_scratch_bytes(heads)
};

inline int64_t logits_scratch_bytes(int64_t heads) {
    return (kPageKeys + heads) * kDim * 4;
}

struct Kernels {
    void (*logits)(const LogitsTile& t);
};

extern const Kernels kPortableKernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;

}  // namespace dsa::indexer::cpu
