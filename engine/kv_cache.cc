#include "engine/kv_cache.h"

#include "attention/attention.h"
#include "indexer/indexer.h"

namespace dsa {
namespace {

constexpr int64_t kLayerBytes = attention::kPageBytes + indexer::kPageBytes;
static_assert(attention::kPageBytes % kAlignment == 0 && indexer::kPageBytes % kAlignment == 0);

int64_t num_pages(int64_t context_length) {
    return (context_length + kPageTokens - 1) / kPageTokens;
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, int64_t context_length)
    : memory_(bytes(config, context_length)) {
    const int64_t page_bytes = config.num_hidden_layers * kLayerBytes;
    for (int64_t i = 0; i < num_pages(context_length); ++i)
        pages_.push_back(memory_.data() + i * page_bytes);
}

int64_t KvCache::bytes(const ModelConfig& config, int64_t context_length) {
    return num_pages(context_length) * config.num_hidden_layers * kLayerBytes;
}

PageTable KvCache::kv(int64_t layer) const {
    return {pages_.data(), layer * kLayerBytes};
}

PageTable KvCache::index_keys(int64_t layer) const {
    return {pages_.data(), layer * kLayerBytes + attention::kPageBytes};
}

}  // namespace dsa
