#include "dsa/session.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "engine/session_state.h"

namespace dsa {

namespace {

// A call that changes the session, from its begin to its end.
class Call {
  public:
    explicit Call(SessionState& session) : session_(session) {
        if (session.in_call.exchange(true))
            throw_error(ErrorCode::kBusy,
                        "the session is in a call already (one thread at a time, and no call out "
                        "of a callback)");
        session.cancelled.store(false);
    }
    ~Call() { session_.in_call.store(false); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

  private:
    SessionState& session_;
};

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

SessionState::SessionState(std::shared_ptr<const EngineState> e)
    : engine(std::move(e)),
      cache(make_cache(*engine)),
      scratch(arena_bytes(*engine)),
      logits(static_cast<size_t>(config().vocab_size)) {
    tokens.reserve(static_cast<size_t>(context_length()));
}

// Throws unless the ids can be taken in at `position`.
void SessionState::check_ids(std::span<const int32_t> ids, int64_t position) const {
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

void SessionState::forward(std::span<const int32_t> ids, std::span<const int64_t> logit_rows,
                           float* out, ForwardTrace* trace, const std::atomic<bool>* stop) {
    if (engine->reference) {
        engine->reference->forward(std::get<ReferenceCache>(cache), length(), ids, logit_rows, out,
                                   trace);
    } else {
        Exec exec{engine->pool, scratch, engine->isa, stop};
        engine->model->forward(exec, std::get<KvCache>(cache), length(), ids, logit_rows, out,
                               trace);
    }
}

void SessionState::take_chunk(std::span<const int32_t> ids, bool last,
                              const PrefillOptions& options, const std::atomic<bool>* stop) {
    has_logits = false;
    if (options.trace_request != nullptr) {
        take_traced_chunk(ids, last, *options.trace_request, *options.trace, stop);
    } else {
        const int64_t last_row = static_cast<int64_t>(ids.size()) - 1;
        forward(ids, {&last_row, last ? size_t{1} : size_t{0}}, logits.data(), nullptr, stop);
    }
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    has_logits = last;
}

void SessionState::take_traced_chunk(std::span<const int32_t> ids, bool last,
                                     const TraceRequest& request, Trace& trace,
                                     const std::atomic<bool>* stop) {
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
    forward(ids, logit_rows, out.data(), &t, stop);
    if (last) std::copy(out.end() - vocab, out.end(), logits.begin());
    out.resize(traced * static_cast<size_t>(vocab));
    append(trace.logits, out);
    append(trace.rows, t.rows);
    append_layers(trace.hidden, t.hidden);
    append_layers(trace.topk, t.topk);
    append_layers(trace.experts, t.experts);
    if (request.index_scores) append_index_scores(trace, t, config().num_hidden_layers);
}

int64_t SessionState::take(std::span<const int32_t> ids, const PrefillOptions& options) {
    DSA_CHECK((options.trace_request == nullptr) == (options.trace == nullptr),
              "prefill: trace and trace_request are given together or not at all");
    check_ids(ids, length());
    const auto total = static_cast<int64_t>(ids.size());
    const int64_t chunk = engine->options.prefill_chunk;
    for (int64_t done = 0; done < total;) {
        check_open();
        if (cancelled.load()) throw_error(ErrorCode::kCancelled, "cancelled");
        const int64_t n = std::min(chunk, total - done);
        take_chunk(ids.subspan(static_cast<size_t>(done), static_cast<size_t>(n)),
                   done + n == total, options, &cancelled);
        done += n;
        if (options.on_progress && !options.on_progress(done, total)) return done;
    }
    return total;
}

// Throws unless the engine is open.
void SessionState::check_open() const {
    if (engine->closed.load())
        throw_error(ErrorCode::kClosed, "the engine of this session was closed");
}

void SessionState::rewind(int64_t n) {
    DSA_CHECK(n >= 0 && n <= length(), "rewind to ", n, " tokens, expected 0 to ", length());
    if (n < length()) has_logits = false;
    tokens.resize(static_cast<size_t>(n));
}

int64_t SessionState::take_turn(std::span<const int32_t> ids, const PrefillOptions& options) {
    DSA_CHECK(!ids.empty(), "take_turn: no tokens");
    check_ids(ids, 0);
    const auto common = std::mismatch(tokens.begin(), tokens.end(), ids.begin(), ids.end()).first;
    auto kept = static_cast<int64_t>(common - tokens.begin());
    const auto total = static_cast<int64_t>(ids.size());
    if (kept == total && (total < length() || !has_logits)) --kept;  // for its logits
    rewind(kept);
    take(ids.subspan(static_cast<size_t>(kept)), options);
    return kept;
}

std::span<const float> SessionState::current_logits() const {
    if (!has_logits) return {};
    return logits;
}

Session::Session(std::unique_ptr<SessionState> state) : state_(std::move(state)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

SessionState& Session::state() const {
    DSA_CHECK(state_ != nullptr, "this session was moved from");
    return *state_;
}

Session Engine::new_session() const {
    if (state().closed.load()) throw_error(ErrorCode::kClosed, "the engine was closed");
    return Session(std::make_unique<SessionState>(state_));
}

std::span<const int32_t> Session::tokens() const {
    return state().tokens;
}

int64_t Session::context_length() const {
    return state().context_length();
}

std::span<const float> Session::logits() const {
    return state().current_logits();
}

void Session::cancel() const {
    state().cancelled.store(true);
}

void Session::rewind(int64_t n) {
    const Call call(state());
    state().rewind(n);
}

int64_t Session::prefill(std::span<const int32_t> ids, const PrefillOptions& options) {
    const Call call(state());
    return state().take(ids, options);
}

int64_t Session::take_turn(std::span<const int32_t> ids, const PrefillOptions& options) {
    const Call call(state());
    return state().take_turn(ids, options);
}

std::span<const float> Session::decode(int32_t id, const PrefillOptions& options) {
    const Call call(state());
    state().take({&id, 1}, options);
    return state().current_logits();
}

GenerateResult Session::generate(const GenerateOptions& options,
                                 const std::function<bool(const GeneratedToken&)>& on_token) {
    const Call call(state());
    return state().generate(options, on_token);
}

}  // namespace dsa
