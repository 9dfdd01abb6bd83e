// The memory plan, and the options it depends on.

#include <algorithm>
#include <thread>

#include "dsa/engine.h"
#include "engine/engine_state.h"
#include "engine/kv_cache.h"

namespace dsa {
namespace {

constexpr int64_t kDefaultContext = 32768;
constexpr int kMaxThreads = 1024;
constexpr double kCountable = 0x1p56;  // products below this add up to bytes within int64

// The bounds of the config's fields keep all sizes but these few products within int64, and a
// checkpoint cannot be larger than its files; options and a ModelInfo made by hand can ask for
// more.
void check_countable(const ModelConfig& c, const EngineOptions& o) {
    const auto real = [](int64_t n) { return static_cast<double>(n); };
    const double shared = real(c.moe_intermediate_size) * real(c.n_shared_experts);
    const double hidden = real(c.hidden_size);
    const double tokens = real(o.prefill_chunk);
    const double experts = real(std::max<int64_t>(1, c.n_routed_experts));
    const double rows = tokens * real(std::max<int64_t>(1, c.num_experts_per_tok));
    const double routed = rows * std::max(hidden, real(c.moe_intermediate_size));
    const double weights =
        real(c.num_hidden_layers) * hidden *
        std::max({real(c.intermediate_size), shared, experts * real(c.moe_intermediate_size)});
    const double largest = std::max({routed, tokens * shared, o.reference ? weights : 0.0});
    if (largest < kCountable) return;
    throw_error(ErrorCode::kOutOfMemory, "needs more memory than can be counted: ", largest,
                " values for a prefill chunk of ", o.prefill_chunk, " tokens, hidden_size ",
                c.hidden_size, ", moe_intermediate_size ", c.moe_intermediate_size,
                ", n_routed_experts ", c.n_routed_experts, ", num_experts_per_tok ",
                c.num_experts_per_tok);
}

// What a process has resident beside the rest, measured with glibc 2.36: a program at its start and
// with its kernels run, 2 and 16 threads (72 KB each), a vocabulary of 8192 (211 bytes a piece),
// 784 and 22469 tensors (0.7 KB each; JSON is gone by the time of the peak).
constexpr int64_t kProgramBytes = 9 << 20;   // program and libraries: code, data, first heap
constexpr int64_t kThreadBytes = 128 << 10;  // stack, thread-local data
constexpr int64_t kPieceBytes = 256;         // a piece of the tokenizer: text, tries
constexpr int64_t kTensorBytes = 1 << 10;    // name, shape, place, pointers
constexpr int64_t kPageTableShare = 512;     // an entry of 8 bytes for each page of 4096

int64_t process_bytes(const ModelInfo& info, int threads, int64_t other_bytes) {
    int64_t tensors = 0;
    for (const TensorSummary& t : info.tensors) tensors += t.count;
    return kProgramBytes + threads * kThreadBytes + tensors * kTensorBytes +
           (info.has_tokenizer ? info.config.vocab_size * kPieceBytes : 0) +
           other_bytes / kPageTableShare;
}

}  // namespace

int64_t default_context_length(const ModelConfig& config) {
    return std::min(config.max_position_embeddings, kDefaultContext);
}

EngineOptions resolve_options(const ModelConfig& config, const EngineOptions& requested) {
    EngineOptions o = requested;
    if (o.threads == 0)
        o.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    if (o.threads < 1 || o.threads > kMaxThreads)
        throw_error(ErrorCode::kInvalidArgument, "threads is ", o.threads, ", expected 1 to ",
                    kMaxThreads);
    if (o.context_length == 0) o.context_length = default_context_length(config);
    if (o.context_length < 1)
        throw_error(ErrorCode::kInvalidArgument, "context length is ", o.context_length,
                    ", expected >= 1");
    if (o.context_length > config.max_position_embeddings)
        throw_error(ErrorCode::kContextOverflow, "context length is ", o.context_length,
                    ", more than the ", config.max_position_embeddings,
                    " positions of the model (max_position_embeddings)");
    if (o.prefill_chunk < 1)
        throw_error(ErrorCode::kInvalidArgument, "prefill chunk is ", o.prefill_chunk,
                    ", expected >= 1");
    if (o.memory_limit < 0)
        throw_error(ErrorCode::kInvalidArgument, "memory limit is ", o.memory_limit,
                    ", expected >= 0");
    o.prefill_chunk = std::min(o.prefill_chunk, o.context_length);
    return o;
}

MemoryPlan plan_memory(const ModelInfo& info, const EngineOptions& options) {
    const ModelConfig& config = info.config;
    const EngineOptions o = resolve_options(config, options);
    check_countable(config, o);
    MemoryPlan plan;
    plan.context_length = o.context_length;
    plan.weights = info.weight_bytes;
    plan.copies = info.copied_bytes;
    // Logits of the last token.
    const int64_t logits = config.vocab_size * static_cast<int64_t>(sizeof(float));
    if (o.reference) {
        plan.copies += ReferenceModel::weight_bytes(config);
        plan.kv_cache = o.context_length * ReferenceCache::bytes_per_token(config);
        plan.scratch = ReferenceModel::scratch_bytes(config, o.context_length, o.threads) + logits;
        plan.tables = ReferenceModel::table_bytes(config, o.context_length);
    } else {
        plan.kv_cache = KvCache::bytes(config, o.context_length);
        plan.scratch =
            Model::scratch_bytes(config, o.prefill_chunk, o.context_length, o.threads) + logits;
        plan.tables = Model::table_bytes(config, o.context_length);
    }
    plan.process = process_bytes(info, o.threads, plan.total());
    return plan;
}

}  // namespace dsa
