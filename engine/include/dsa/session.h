#pragma once
// A session: one timeline of tokens with its caches. For one thread at a time.
//
// Logits, hidden states and selections are those of the model's forward pass; none depends on how
// the tokens were cut into calls (docs/numerics.md). A session is movable, and keeps what it needs
// of the engine alive. After an error the session still holds the tokens it had before the call,
// and after kCancelled and kClosed those of the chunks that were done.
//
// A call while another one is in progress (on a second thread, or in a callback) throws kBusy;
// cancel() alone may come from any thread. tokens(), length() and logits() may be read in a
// callback. All calls on an object that was moved from throw kInvalidArgument.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsa/sampling.h"

namespace dsa {

// What a prefill shall record beside the caches. Rows are positions in the session (not in the
// call), ascending; rows outside of the call are ignored.
struct TraceRequest {
    std::vector<int64_t> rows;  // the rows that the flags below speak of
    bool logits = false;
    bool all_logits = false;  // logits of every token of the call, whatever `rows` says
    bool hidden = false;      // residual stream after each layer
    bool topk = false;        // selected positions of each layer
    bool experts = false;     // chosen routed experts of each MoE layer
    bool index_scores =
        false;  // index scores of each layer, where more than index_topk are visible
};

// Recorded rows, in the order of `rows`.
struct Trace {
    std::vector<int64_t> rows;               // those of the request that the call covered
    std::vector<float> logits;               // [rows, vocab_size]; all_logits: [tokens, vocab_size]
    std::vector<std::vector<float>> hidden;  // [layers][rows * hidden_size]
    // [layers][rows][min(index_topk, position + 1)], ascending. All visible positions where these
    // are not more than index_topk.
    std::vector<std::vector<std::vector<int32_t>>> topk;
    std::vector<std::vector<int32_t>> experts;  // [MoE layers][rows * experts_per_tok], ascending
    // [layers][rows][position + 1]: what the selection was made from; empty where all visible
    // positions were selected anyway.
    std::vector<std::vector<std::vector<float>>> index_scores;
};

struct PrefillOptions {
    const TraceRequest* trace_request = nullptr;
    Trace* trace = nullptr;  // appended to; needed with trace_request
    // Called after each chunk with the tokens done and the tokens of the call; false stops there.
    // The tokens done so far stay in the session.
    std::function<bool(int64_t done, int64_t total)> on_progress{};
};

struct GeneratedToken {
    int32_t id;
    std::string_view text;  // whole UTF-8 characters that became complete with this token
};

enum class StopReason { kEndToken, kMaxTokens, kContextFull, kCallback, kCancelled };

struct GenerateOptions {
    SamplingParams sampling{};
    int64_t max_tokens = 0;           // 0: until the context is full
    std::vector<int32_t> stop_ids{};  // empty: the model's end tokens
    bool ignore_eos = false;
};

struct GenerateResult {
    std::vector<int32_t> ids;  // generated, a final end token included
    std::string text;          // end token not included
    StopReason reason = StopReason::kMaxTokens;
};

class Session {
  public:
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;

    // All tokens so far, in order. Valid until the next call that changes them.
    std::span<const int32_t> tokens() const;
    int64_t length() const { return static_cast<int64_t>(tokens().size()); }
    int64_t context_length() const;

    // Forgets all but the first n tokens; 0 <= n <= length(). The logits are gone until more tokens
    // are taken in.
    void rewind(int64_t n);

    // Takes tokens in. Throws kContextOverflow before anything happens if they do not fit,
    // kInvalidArgument for an id outside of the vocabulary. Returns how many were taken in.
    int64_t prefill(std::span<const int32_t> ids, const PrefillOptions& options = {});

    // Makes the session hold exactly `ids`: keeps the longest common prefix, rewinds to it and
    // takes in the rest (at least the last token, so that there are logits). Returns how many were
    // kept.
    int64_t take_turn(std::span<const int32_t> ids, const PrefillOptions& options = {});

    // Takes one token in and returns logits().
    std::span<const float> decode(int32_t id, const PrefillOptions& options = {});

    // Logits [vocab_size] that follow the last token; empty where there are none (new session,
    // after rewind). Valid until the next call that changes the session.
    std::span<const float> logits() const;

    // Samples until a stop; needs logits. Each token is taken in before the next is sampled, the
    // last one too, end tokens included, so that tokens() is the whole text; but nothing beyond the
    // context. The callback may return false to stop; what it throws comes out of generate(), and
    // the token it was called with is not taken in. Same seed, build, ISA, precision and CPU
    // model give the same text.
    GenerateResult generate(const GenerateOptions& options,
                            const std::function<bool(const GeneratedToken&)>& on_token = {});

    // Stops the call in progress, from any thread: a prefill, take_turn or decode throws kCancelled
    // before its next layer, generate returns with that reason before its next token. Without a
    // call in progress it does nothing.
    void cancel() const;

  private:
    friend class Engine;
    explicit Session(std::unique_ptr<struct SessionState> state);
    struct SessionState& state() const;
    std::unique_ptr<struct SessionState> state_;
};

}  // namespace dsa
