#pragma once
// The caches of one session: KV records and index keys of all layers, in pages of 64 tokens
// (docs/formats.md). Owns its memory, reserved for the whole context and taken as it is written, so
// that nothing is allocated between tokens. For one thread at a time.

#include <cstdint>
#include <vector>

#include "base/arena.h"
#include "base/paging.h"
#include "dsa/model_info.h"

namespace dsa {

class KvCache {
  public:
    KvCache(const ModelConfig& config, int64_t context_length);
    // What the constructor reserves.
    static int64_t bytes(const ModelConfig& config, int64_t context_length);

    PageTable kv(int64_t layer) const;
    PageTable index_keys(int64_t layer) const;

  private:
    AlignedBuffer memory_;
    std::vector<uint8_t*> pages_;
};

}  // namespace dsa
