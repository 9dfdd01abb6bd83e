#pragma once
// Text to token ids and back. Immutable, shared by all threads.
//
// Ordinary text never becomes a control token, whatever it spells: control tokens are reached by
// their piece only (special_id). Detokenisation of a stream goes through StreamDecoder.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsa {

class Tokenizer {
  public:
    virtual ~Tokenizer();

    virtual int64_t vocab_size() const = 0;
    // No begin or end token is added. Any bytes are allowed.
    virtual std::vector<int32_t> encode(std::string_view text) const = 0;
    // Bytes of a token as they stand in running text; "" for control tokens. Throws
    // kInvalidArgument for an id outside of the vocabulary.
    virtual std::string token_bytes(int32_t id) const = 0;
    // The piece as the vocabulary spells it: "<0x0A>", "\u2581the", "<\uff5cUser\uff5c>".
    virtual std::string piece(int32_t id) const = 0;
    virtual bool is_special(int32_t id) const = 0;
    // Id of a special token by its piece; nullopt if the vocabulary has none such.
    virtual std::optional<int32_t> find_special(std::string_view piece) const = 0;

    // As find_special; throws kUnsupported, naming the piece, if there is none.
    int32_t special_id(std::string_view piece) const;
    // All of a sequence, invalid UTF-8 replaced by U+FFFD, control tokens left out.
    std::string decode(std::span<const int32_t> ids) const;
};

// Opens the tokenizer files of a model folder; nullptr if there are none. Throws kInvalidModel for
// a damaged file or one with more pieces than vocab_size, kUnsupported for a SentencePiece model
// with a precompiled normalisation table (the library reads that table unchecked).
std::unique_ptr<const Tokenizer> open_tokenizer(const std::filesystem::path& model,
                                                int64_t vocab_size);

// Turns a stream of tokens into whole UTF-8 characters.
class StreamDecoder {
  public:
    explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
    // Text that became complete with this token; may be empty. Bytes that can no longer become
    // valid come out as U+FFFD.
    std::string push(int32_t id);
    // What is left at the end: "" or U+FFFD for an unfinished character.
    std::string finish();

  private:
    const Tokenizer* tokenizer_;
    std::string pending_;
};

}  // namespace dsa
