#include "dsa/session.h"

#include <algorithm>
#include <iterator>
#include <variant>

#include "base/check.h"
#include "engine/engine_state.h"
#include "engine/kv_cache.h"

namespace dsa {

struct Session::State {
    std::shared_ptr<const EngineState> engine;
    std::variant<KvCache, ReferenceCache> cache;
    Arena scratch;
    std::vector<int32_t> tokens;
    std::vector<float> logits;  // [vocab_size]
    bool has_logits = false;

    explicit State(std::shared_ptr<const EngineState> e);

    const ModelConfig& config() const { return engine->checkpoint.config(); }
    int64_t context_length() const { return engine->options.context_length; }
    int64_t length() const { return static_cast<int64_t>(tokens.size()); }

    void check_ids(std::span<const int32_t> ids, int64_t position) const;
    void forward(std::span<const int32_t> ids, std::span<const int64_t> logit_rows, float* out,
                 ForwardTrace* trace);
    void take_chunk(std::span<const int32_t> ids, bool last, const PrefillOptions& options);
    void take_traced_chunk(std::span<const int32_t> ids, bool last, const TraceRequest& request,
                           Trace& trace);
    int64_t take(std::span<const int32_t> ids, const PrefillOptions& options);
};

namespace {

std::variant<KvCache, ReferenceCache> make_cache(const EngineState& e) {
    const int64_t context = e.options.context_length;
    if (e.options.reference) return ReferenceCache(e.checkpoint.config(), context);
    return KvCache(e.checkpoint.config(), context);
}

int64_t arena_bytes(const EngineState& e) {
    if (e.options.reference) return 0;
    return Model::scratch_bytes(e.checkpoint.config(), e.options.prefill_chunk,
                                e.options.context_length, e.options.threads);
}

ForwardTrace make_forward_trace(const TraceRequest& request, std::vector<int64_t> rows,
                                int64_t index_topk) {
    ForwardTrace t;
    t.want_hidden = request.hidden;
    t.want_topk = request.topk;
    t.want_experts = request.experts;
    if (request.index_scores)
        std::copy_if(rows.begin(), rows.end(), std::back_inserter(t.index_rows),
                     [&](int64_t row) { return row + 1 > index_topk; });
    t.rows = std::move(rows);
    return t;
}

template <typename T>
void append(std::vector<T>& out, const std::vector<T>& in) {
    out.insert(out.end(), in.begin(), in.end());
}

template <typename T>
void append_layers(std::vector<std::vector<T>>& out, const std::vector<std::vector<T>>& in) {
    out.resize(std::max(out.size(), in.size()));
    for (size_t l = 0; l < in.size(); ++l) append(out[l], in[l]);
}

// Rows without scores get empty ones, so that every layer has an entry a row.
void append_index_scores(Trace& out, const ForwardTrace& t, int64_t num_layers) {
    out.index_scores.resize(static_cast<size_t>(num_layers));
    for (size_t l = 0; l < out.index_scores.size(); ++l) {
        size_t next = 0;
        for (int64_t row : t.rows) {
            const bool scored = t.wants_index_row(row);
            out.index_scores[l].push_back(scored ? t.index_scores[l][next] : std::vector<float>());
            next += scored ? 1 : 0;
        }
    }
}

}  // namespace

Session::State::State(std::shared_ptr<const EngineState> e)
    : engine(std::move(e)),
      cache(make_cache(*engine)),
      scratch(arena_bytes(*engine)),
      logits(static_cast<size_t>(config().vocab_size)) {
    tokens.reserve(static_cast<size_t>(context_length()));
}

// Throws unless the ids can be taken in at `position`.
void Session::State::check_ids(std::span<const int32_t> ids, int64_t position) const {
    const auto n = static_cast<int64_t>(ids.size());
    if (n > context_length() - position)
        throw_error(ErrorCode::kContextOverflow, n, " tokens behind ", position,
                    " do not fit into the context of ", context_length(), " tokens");
    for (int64_t i = 0; i < n; ++i) {
        const int32_t id = ids[static_cast<size_t>(i)];
        DSA_CHECK(id >= 0 && id < config().vocab_size, "token ", i, " of the call has id ", id,
                  ", expected 0 to ", config().vocab_size - 1);
    }
}

void Session::State::forward(std::span<const int32_t> ids, std::span<const int64_t> logit_rows,
                             float* out, ForwardTrace* trace) {
    if (engine->reference) {
        engine->reference->forward(std::get<ReferenceCache>(cache), length(), ids, logit_rows, out,
                                   trace);
    } else {
        Exec exec{engine->pool, scratch, engine->isa};
        engine->model->forward(exec, std::get<KvCache>(cache), length(), ids, logit_rows, out,
                               trace);
    }
}

void Session::State::take_chunk(std::span<const int32_t> ids, bool last,
                                const PrefillOptions& options) {
    has_logits = false;
    if (options.trace_request != nullptr) {
        take_traced_chunk(ids, last, *options.trace_request, *options.trace);
    } else {
        const int64_t last_row = static_cast<int64_t>(ids.size()) - 1;
        forward(ids, {&last_row, last ? size_t{1} : size_t{0}}, logits.data(), nullptr);
    }
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    has_logits = last;
}

void Session::State::take_traced_chunk(std::span<const int32_t> ids, bool last,
                                       const TraceRequest& request, Trace& trace) {
    const int64_t begin = length();
    const auto n = static_cast<int64_t>(ids.size());
    std::vector<int64_t> rows;
    std::copy_if(request.rows.begin(), request.rows.end(), std::back_inserter(rows),
                 [&](int64_t row) { return row >= begin && row < begin + n; });
    std::vector<int64_t> logit_rows;
    for (int64_t i = 0; i < n; ++i)
        if (request.all_logits ||
            (request.logits && std::binary_search(rows.begin(), rows.end(), begin + i)))
            logit_rows.push_back(i);
    const size_t traced = logit_rows.size();
    if (last && (traced == 0 || logit_rows.back() != n - 1)) logit_rows.push_back(n - 1);

    const auto vocab = config().vocab_size;
    std::vector<float> out(logit_rows.size() * static_cast<size_t>(vocab));
    ForwardTrace t = make_forward_trace(request, std::move(rows), config().index_topk);
    forward(ids, logit_rows, out.data(), &t);
    if (last) std::copy(out.end() - vocab, out.end(), logits.begin());
    out.resize(traced * static_cast<size_t>(vocab));
    append(trace.logits, out);
    append(trace.rows, t.rows);
    append_layers(trace.hidden, t.hidden);
    append_layers(trace.topk, t.topk);
    append_layers(trace.experts, t.experts);
    if (request.index_scores) append_index_scores(trace, t, config().num_hidden_layers);
}

int64_t Session::State::take(std::span<const int32_t> ids, const PrefillOptions& options) {
    DSA_CHECK((options.trace_request == nullptr) == (options.trace == nullptr),
              "prefill: trace and trace_request are given together or not at all");
    check_ids(ids, length());
    const auto total = static_cast<int64_t>(ids.size());
    const int64_t chunk = engine->options.prefill_chunk;
    for (int64_t done = 0; done < total;) {
        const int64_t n = std::min(chunk, total - done);
        take_chunk(ids.subspan(static_cast<size_t>(done), static_cast<size_t>(n)),
                   done + n == total, options);
        done += n;
        if (options.on_progress && !options.on_progress(done, total)) return done;
    }
    return total;
}

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Session Engine::new_session() const {
    return Session(std::make_unique<Session::State>(state_));
}

std::span<const int32_t> Session::tokens() const {
    return state_->tokens;
}

int64_t Session::context_length() const {
    return state_->context_length();
}

void Session::rewind(int64_t n) {
    DSA_CHECK(n >= 0 && n <= length(), "rewind to ", n, " tokens, expected 0 to ", length());
    if (n < length()) state_->has_logits = false;
    state_->tokens.resize(static_cast<size_t>(n));
}

int64_t Session::prefill(std::span<const int32_t> ids, const PrefillOptions& options) {
    return state_->take(ids, options);
}

int64_t Session::take_turn(std::span<const int32_t> ids, const PrefillOptions& options) {
    DSA_CHECK(!ids.empty(), "take_turn: no tokens");
    state_->check_ids(ids, 0);
    const auto& have = state_->tokens;
    const auto common = std::mismatch(have.begin(), have.end(), ids.begin(), ids.end()).first;
    auto kept = static_cast<int64_t>(common - have.begin());
    const auto total = static_cast<int64_t>(ids.size());
    if (kept == total && (total < length() || !state_->has_logits)) --kept;  // for its logits
    rewind(kept);
    prefill(ids.subspan(static_cast<size_t>(kept)), options);
    return kept;
}

std::span<const float> Session::decode(int32_t id, const PrefillOptions& options) {
    state_->take({&id, 1}, options);
    return logits();
}

std::span<const float> Session::logits() const {
    if (!state_->has_logits) return {};
    return state_->logits;
}

GenerateResult Session::generate(const GenerateOptions& options,
                                 const std::function<bool(const GeneratedToken&)>& on_token) {
    DSA_CHECK(!logits().empty(), "generate: the session has no logits; take tokens in first");
    DSA_CHECK(options.max_tokens >= 0, "generate: max_tokens is ", options.max_tokens,
              ", expected >= 0");
    const std::vector<int32_t>& ends =
        options.stop_ids.empty() ? state_->config().eos_token_ids : options.stop_ids;
    const Tokenizer* tokenizer = state_->engine->tokenizer.get();
    std::optional<StreamDecoder> text;
    if (tokenizer != nullptr) text.emplace(*tokenizer);
    // A vocabulary may be padded beyond the tokenizer's pieces: nothing there can be shown.
    const size_t candidates =
        tokenizer == nullptr
            ? logits().size()
            : std::min(logits().size(), static_cast<size_t>(tokenizer->vocab_size()));
    Sampler sampler(options.sampling);
    GenerateResult result;
    const auto emit = [&](int32_t id, const std::string& piece) {
        result.text += piece;
        return !on_token || on_token({id, piece});
    };
    for (;;) {
        if (length() == context_length()) {
            result.reason = StopReason::kContextFull;
            break;
        }
        const int32_t id = sampler.sample(logits().first(candidates), tokens());
        const bool end =
            !options.ignore_eos && std::find(ends.begin(), ends.end(), id) != ends.end();
        result.ids.push_back(id);
        const bool go_on = end || emit(id, text ? text->push(id) : std::string());
        decode(id);
        if (end || !go_on) {
            result.reason = end ? StopReason::kEndToken : StopReason::kCallback;
            break;
        }
        if (static_cast<int64_t>(result.ids.size()) == options.max_tokens) {
            result.reason = StopReason::kMaxTokens;
            break;
        }
    }
    const std::string rest = text ? text->finish() : std::string();
    if (!rest.empty()) emit(result.ids.back(), rest);
    return result;
}

}  // namespace dsa
