#include "dsa/tokenizer.h"

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "dsa/error.h"
#include "engine/sentencepiece_tokenizer.h"

namespace dsa {

Tokenizer::~Tokenizer() = default;

int32_t Tokenizer::special_id(std::string_view piece) const {
    const std::optional<int32_t> id = find_special(piece);
    if (!id) {
        throw_error(ErrorCode::kUnsupported, "the tokenizer has no special token ", piece,
                    ", which is needed here");
    }
    return *id;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
    StreamDecoder decoder(*this);
    std::string text;
    for (const int32_t id : ids) text += decoder.push(id);
    text += decoder.finish();
    return text;
}

std::unique_ptr<const Tokenizer> open_tokenizer(const std::filesystem::path& model,
                                                int64_t vocab_size) {
    const std::filesystem::path sentencepiece = model / "tokenizer.model";
    if (!has_entry(sentencepiece)) return nullptr;
    return open_sentencepiece_tokenizer(sentencepiece, vocab_size);
}

std::string StreamDecoder::push(int32_t id) {
    pending_ += tokenizer_->token_bytes(id);
    std::string text;
    std::string_view rest = pending_;
    while (!rest.empty()) {
        const Utf8Unit unit = next_utf8(rest);
        if (unit.state == Utf8State::kIncomplete) break;
        text +=
            unit.state == Utf8State::kValid ? rest.substr(0, unit.bytes) : kReplacementCharacter;
        rest.remove_prefix(unit.bytes);
    }
    pending_.erase(0, pending_.size() - rest.size());
    return text;
}

std::string StreamDecoder::finish() {
    if (pending_.empty()) return {};
    pending_.clear();
    return std::string(kReplacementCharacter);
}

}  // namespace dsa
