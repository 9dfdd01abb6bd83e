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
    const void* q;             // [rows, heads, 128] of widen_queries()
    const float* w;            // [rows, heads]
    const uint8_t* page;       // e4m3 [64, 128], then f32 [64]
    const uint8_t* next_page;  // prefetched; nullptr: none
    float* logits;             // [rows, ld], 64 values a row are written
    int64_t ld;
    void* scratch;  // kLogitsScratchBytes
};

inline constexpr int64_t kLogitsScratchBytes = kPageKeys * kDim * 4;
inline constexpr int64_t kMaxWidenedBytes = 4;  // of a value

struct Kernels {
    int64_t widened_bytes;  // of a value
    // n e4m3 codes, whole vectors, in the form that logits() takes.
    void (*widen_queries)(const uint8_t* codes, int64_t n, void* out);
    void (*logits)(const LogitsTile& t);
};

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;

}  // namespace dsa::indexer::cpu
