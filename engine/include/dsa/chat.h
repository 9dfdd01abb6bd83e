#pragma once
// The chat encoding of DeepSeek-V3.2 (it has no Jinja template): messages to token ids.
//
//   <begin> system <User> user <Assistant> </think> reply <end> <User> ...
//
// Special tokens are looked up by piece in the tokenizer; one that the vocabulary lacks is an error
// (kUnsupported) only when a conversation needs it. Contents are ordinary text: what they spell
// never becomes a special token.

#include <cstdint>
#include <string>
#include <vector>

#include "dsa/tokenizer.h"

namespace dsa {

enum class Role {
    kSystem,
    kUser,
    kAssistant,
    kDocument,  // a long text that a question follows: a user message that asks for no reply
};

struct Message {
    Role role = Role::kUser;
    std::string content{};
    std::string reasoning{};  // assistant only, thinking mode
    // Assistant only: tokens as they were generated. Where given they are used instead of the text,
    // so that nothing generated is ever tokenised again. The end token is not among them.
    std::vector<int32_t> content_ids{};
    std::vector<int32_t> reasoning_ids{};
};

struct ChatOptions {
    bool thinking = false;
    // Thinking: leave out the reasoning before the last user message, as the model is used to. If
    // off, every turn stays as it was generated, and each prompt continues the one before it.
    bool drop_thinking = true;
};

// Ids of the whole conversation, ready for the model to reply if the last message is the user's.
std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const std::vector<Message>& messages,
                                 const ChatOptions& options = {});

// An assistant message from what the model generated behind encode_chat(...) (with or without its
// end token): in thinking mode the part before </think> is the reasoning.
Message parse_reply(const Tokenizer& tokenizer, const std::vector<int32_t>& generated,
                    const std::vector<int32_t>& end_ids, bool thinking);

}  // namespace dsa
