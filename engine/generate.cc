// Generation: sampling and streaming behind a session's logits.

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "engine/session_state.h"

namespace dsa {

GenerateResult SessionState::generate(const GenerateOptions& options,
                                      const std::function<bool(const GeneratedToken&)>& on_token) {
    DSA_CHECK(!current_logits().empty(),
              "generate: the session has no logits; take tokens in first");
    DSA_CHECK(options.max_tokens >= 0, "generate: max_tokens is ", options.max_tokens,
              ", expected >= 0");
    const std::vector<int32_t>& ends =
        options.stop_ids.empty() ? config().eos_token_ids : options.stop_ids;
    const Tokenizer* tokenizer = engine->tokenizer.get();
    std::optional<StreamDecoder> text;
    if (tokenizer != nullptr) text.emplace(*tokenizer);
    // A vocabulary may be padded beyond the tokenizer's pieces: nothing there can be shown.
    const size_t candidates =
        tokenizer == nullptr
            ? current_logits().size()
            : std::min(current_logits().size(), static_cast<size_t>(tokenizer->vocab_size()));
    Sampler sampler(options.sampling);
    GenerateResult result;
    const auto emit = [&](int32_t id, const std::string& piece) {
        result.text += piece;
        return !on_token || on_token({id, piece});
    };
    for (;;) {
        check_open();
        if (cancelled.load()) {
            result.reason = StopReason::kCancelled;
            break;
        }
        if (length() == context_length()) {
            result.reason = StopReason::kContextFull;
            break;
        }
        const int32_t id = sampler.sample(current_logits().first(candidates), tokens);
        const bool end =
            !options.ignore_eos && std::find(ends.begin(), ends.end(), id) != ends.end();
        result.ids.push_back(id);
        const bool go_on = end || emit(id, text ? text->push(id) : std::string());
        take_chunk({&id, 1}, true, {}, nullptr);  // never stopped half-way: it was shown
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
