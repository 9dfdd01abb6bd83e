#include "dsa/chat.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

namespace dsa {
namespace {

// U+FF5C and U+2581 are not their ASCII look-alikes.
constexpr std::string_view kBegin = "<\uff5cbegin\u2581of\u2581sentence\uff5c>";
constexpr std::string_view kEnd = "<\uff5cend\u2581of\u2581sentence\uff5c>";
constexpr std::string_view kUser = "<\uff5cUser\uff5c>";
constexpr std::string_view kAssistant = "<\uff5cAssistant\uff5c>";
constexpr std::string_view kThinkBegin = "<think>";
constexpr std::string_view kThinkEnd = "</think>";

class ChatEncoder {
  public:
    explicit ChatEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

    void special(std::string_view piece) { ids_.push_back(tokenizer_.special_id(piece)); }
    void text(std::string_view text) { append(tokenizer_.encode(text)); }
    // Generated tokens where there are any, else the text.
    void reply(const std::vector<int32_t>& ids, std::string_view text) {
        append(ids.empty() ? tokenizer_.encode(text) : ids);
    }
    std::vector<int32_t> take() { return std::move(ids_); }

  private:
    void append(const std::vector<int32_t>& ids) {
        ids_.insert(ids_.end(), ids.begin(), ids.end());
    }

    const Tokenizer& tokenizer_;
    std::vector<int32_t> ids_;
};

}  // namespace

std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const std::vector<Message>& messages,
                                 const ChatOptions& options) {
    const auto last_user = std::find_if(messages.rbegin(), messages.rend(),
                                        [](const Message& m) { return m.role == Role::kUser; });
    const auto last_user_index = messages.rend() - last_user - 1;  // -1: none

    ChatEncoder out(tokenizer);
    out.special(kBegin);
    for (size_t i = 0; i < messages.size(); ++i) {
        const Message& message = messages[i];
        const auto index = static_cast<std::ptrdiff_t>(i);
        switch (message.role) {
            case Role::kSystem:
                out.text(message.content);
                break;
            case Role::kUser:
                out.special(kUser);
                out.text(message.content);
                out.special(kAssistant);
                out.special(options.thinking && (index == last_user_index || !options.drop_thinking)
                                ? kThinkBegin
                                : kThinkEnd);
                break;
            case Role::kDocument:
                out.special(kUser);
                out.text(message.content);
                break;
            case Role::kAssistant:
                if (options.thinking && (index > last_user_index || !options.drop_thinking)) {
                    out.reply(message.reasoning_ids, message.reasoning);
                    out.special(kThinkEnd);
                }
                out.reply(message.content_ids, message.content);
                out.special(kEnd);
                break;
        }
    }
    return out.take();
}

Message parse_reply(const Tokenizer& tokenizer, const std::vector<int32_t>& generated,
                    const std::vector<int32_t>& end_ids, bool thinking) {
    const auto end =
        std::find_first_of(generated.begin(), generated.end(), end_ids.begin(), end_ids.end());
    auto content = generated.begin();
    Message message;
    message.role = Role::kAssistant;
    if (thinking) {
        // Without </think> the reply was cut within its reasoning.
        const auto think_end = std::find(content, end, tokenizer.special_id(kThinkEnd));
        message.reasoning_ids.assign(content, think_end);
        message.reasoning = tokenizer.decode(message.reasoning_ids);
        content = think_end == end ? end : think_end + 1;
    }
    message.content_ids.assign(content, end);
    message.content = tokenizer.decode(message.content_ids);
    return message;
}

}  // namespace dsa
