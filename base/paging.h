#pragma once
// Paged caches: a page holds kPageTokens consecutive tokens of one session, for all layers and both
// caches; a layer's part of one cache starts at a fixed offset in each page.

#include <cstdint>

namespace dsa {

inline constexpr int64_t kPageTokens = 64;

// One layer's part of one cache of a session. Owns nothing.
struct PageTable {
    uint8_t* const* pages = nullptr;  // [ceil(context / kPageTokens)]
    int64_t offset = 0;               // bytes into each page

    // Start of this layer's part of the page that holds `position`.
    uint8_t* page(int64_t position) const { return pages[position / kPageTokens] + offset; }
};

}  // namespace dsa
