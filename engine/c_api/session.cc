// The C interface: sessions, sampling, generation.

#include <string>
#include <utility>

#include "engine/c_api/support.h"

namespace dsa::c_api {
namespace {

SamplingParams sampling_params(const dsa_sampling* from) {
    const dsa_sampling s = read_struct(from, "sampling");
    SamplingParams params;
    params.seed = s.seed;
    params.temperature = s.temperature;
    params.top_k = s.top_k;
    if (s.top_p != 0.0) params.top_p = s.top_p;
    params.min_p = s.min_p;
    if (s.repetition_penalty != 0.0) params.repetition_penalty = s.repetition_penalty;
    return params;
}

GenerateOptions generate_options(const dsa_generate_options* from) {
    const dsa_generate_options o = read_struct(from, "options");
    GenerateOptions options;
    options.sampling = sampling_params(o.sampling);
    options.max_tokens = o.max_tokens;
    const auto stops = array(o.stop_ids, o.num_stop_ids, "options.stop_ids");
    options.stop_ids.assign(stops.begin(), stops.end());
    options.ignore_eos = o.ignore_eos;
    return options;
}

PrefillOptions prefill_options(dsa_progress progress, void* user) {
    PrefillOptions options;
    if (progress != nullptr)
        options.on_progress = [=](int64_t done, int64_t total) {
            return progress(user, done, total);
        };
    return options;
}

int32_t stop_reason(StopReason reason) {
    switch (reason) {
        case StopReason::kEndToken:
            return DSA_STOP_END_TOKEN;
        case StopReason::kMaxTokens:
            return DSA_STOP_MAX_TOKENS;
        case StopReason::kContextFull:
            return DSA_STOP_CONTEXT_FULL;
        case StopReason::kCallback:
            return DSA_STOP_CALLBACK;
        case StopReason::kCancelled:
            break;
    }
    return DSA_STOP_CANCELLED;
}

using TakeIn = int64_t (Session::*)(std::span<const int32_t>, const PrefillOptions&);

// result (may be null): what the call returns.
dsa_status take_in(TakeIn call, dsa_session* session, const int32_t* ids, size_t num_ids,
                   dsa_progress progress, void* user, size_t* result) {
    return guarded([&] {
        const auto s = enter(session);
        const int64_t n =
            (s->session.*call)(array(ids, num_ids, "ids"), prefill_options(progress, user));
        if (result != nullptr) *result = static_cast<size_t>(n);
    });
}

}  // namespace
}  // namespace dsa::c_api

using namespace dsa::c_api;

dsa_status dsa_session_new(dsa_engine* engine, dsa_session** session) {
    return guarded([&] {
        const auto e = engine_of(engine);
        dsa_session*& out = required(session, "session");
        out = sessions().add(std::make_shared<SessionObject>(e->new_session()));
    });
}

dsa_status dsa_session_close(dsa_session* session) {
    return guarded([&] { sessions().remove(session, "session")->session.cancel(); });
}

dsa_status dsa_session_tokens(dsa_session* session, int32_t* ids, size_t capacity, size_t* count) {
    return guarded([&] {
        const auto s = enter(session);
        write_array<int32_t>(s->session.tokens(), ids, capacity, count);
    });
}

dsa_status dsa_session_rewind(dsa_session* session, size_t n) {
    return guarded([&] {
        const auto s = enter(session);
        if (std::cmp_greater(n, s->session.length()))
            dsa::throw_error(dsa::ErrorCode::kInvalidArgument, "rewind to ", n,
                             " tokens, expected 0 to ", s->session.length());
        s->session.rewind(static_cast<int64_t>(n));
    });
}

dsa_status dsa_session_prefill(dsa_session* session, const int32_t* ids, size_t num_ids,
                               dsa_progress progress, void* user, size_t* taken) {
    return take_in(&dsa::Session::prefill, session, ids, num_ids, progress, user, taken);
}

dsa_status dsa_session_take_turn(dsa_session* session, const int32_t* ids, size_t num_ids,
                                 dsa_progress progress, void* user, size_t* kept) {
    return take_in(&dsa::Session::take_turn, session, ids, num_ids, progress, user, kept);
}

dsa_status dsa_session_decode(dsa_session* session, int32_t id) {
    return guarded([&] { enter(session)->session.decode(id); });
}

dsa_status dsa_session_logits(dsa_session* session, float* logits, size_t capacity, size_t* count) {
    return guarded([&] {
        const auto s = enter(session);
        write_array<float>(s->session.logits(), logits, capacity, count);
    });
}

dsa_status dsa_session_cancel(dsa_session* session) {
    return guarded([&] { sessions().get(session, "session")->session.cancel(); });
}

dsa_status dsa_sampler_new(const dsa_sampling* sampling, dsa_sampler** sampler) {
    return guarded([&] {
        dsa_sampler*& out = required(sampler, "sampler");
        out = samplers().add(std::make_shared<SamplerObject>(sampling_params(sampling)));
    });
}

dsa_status dsa_sampler_close(dsa_sampler* sampler) {
    return guarded([&] { samplers().remove(sampler, "sampler"); });
}

dsa_status dsa_sampler_sample(dsa_sampler* sampler, dsa_session* session, int32_t* id) {
    return guarded([&] {
        const InCall chooser(samplers().get(sampler, "sampler"), "sampler");
        const auto s = enter(session);
        int32_t& out = required(id, "id");
        out = chooser->sampler.sample(s->session.logits(), s->session.tokens());
    });
}

dsa_status dsa_session_generate(dsa_session* session, const dsa_generate_options* options,
                                dsa_on_token on_token, void* user, dsa_generate_result* result) {
    return guarded([&] {
        const auto s = enter(session);
        if (result != nullptr) size_of(*result, "result");
        std::string text;
        const auto forward = [&](const dsa::GeneratedToken& token) {
            if (on_token == nullptr) return true;
            text = token.text;  // NUL-terminated
            return on_token(user, token.id, text.c_str(), text.size());
        };
        const dsa::GenerateResult r = s->session.generate(generate_options(options), forward);
        if (result != nullptr)
            write_struct({sizeof(dsa_generate_result), static_cast<int64_t>(r.ids.size()),
                          stop_reason(r.reason)},
                         result, "result");
    });
}
