#pragma once
// What an attention kernel file provides for its ISA. Raw pointers only (see base/avx512.h); bf16
// is uint16_t here.
//
// The selected positions of a query are cut into splits of kSplitKeys, in their order. A split
// gives for each head its largest logit m, l = sum exp(logit - m), and z = sum exp(logit - m) * c;
// splits are merged one after another. So the order of operations of a query depends on its own
// list only, whether one thread takes the splits in turn or several share them.

#include <cstdint>

namespace dsa::attention::cpu {

inline constexpr int64_t kLatent = 512;
inline constexpr int64_t kRope = 64;
inline constexpr int64_t kKey = kLatent + kRope;
inline constexpr int64_t kRecord = 656;
inline constexpr int64_t kTokensPerPage = 64;
inline constexpr int64_t kSplitKeys = 256;

// Per head of a query, over some of its keys.
struct Partial {
    float* m;  // [heads]
    float* l;  // [heads]
    float* z;  // [heads, 512], the dims in the kernels' own order
};

struct SplitArgs {
    int64_t heads;
    const uint16_t* q;  // [heads, 576]
    uint8_t* const* pages;
    int64_t page_offset;
    const int32_t* indices;  // [count] positions
    int64_t count;           // 1 .. kSplitKeys
    float scale;             // of the logits
    Partial out;
    void* scratch;  // split_scratch_bytes(heads)
};

// Widened keys [kSplitKeys, 576], logits or probabilities [heads, kSplitKeys] and widened queries
// [heads, 576], fp32 at most (the portable kernels' keys).
inline int64_t split_scratch_bytes(int64_t heads) {
    return (kSplitKeys * (kKey + heads) + heads * kKey) * 4;
}

struct Kernels {
    void (*split)(const SplitArgs& a);
    // into = into merged with next.
    void (*merge)(int64_t heads, const Partial& into, const Partial& next);
    // out = bf16(z / l), [heads, 512]
    void (*finish)(int64_t heads, const Partial& x, uint16_t* out);
};

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;

}  // namespace dsa::attention::cpu
