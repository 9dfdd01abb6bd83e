#pragma once
// SentencePiece models (tokenizer.model) behind the Tokenizer interface.
//
// encode() gives the library's own tokens, but for three kinds of text. Bytes that are not UTF-8,
// and U+2581 (the library would read it as a space), become byte pieces where the model has them,
// so that they survive a round trip. Text that spells a special token is cut so that it becomes
// ordinary pieces. Special tokens are the CONTROL pieces, and USER_DEFINED pieces spelled like a
// marker: "<...>" or with U+FF5C at both ends.

#include <filesystem>
#include <memory>

#include "dsa/tokenizer.h"

namespace dsa {

// Errors as open_tokenizer's.
std::unique_ptr<const Tokenizer> open_sentencepiece_tokenizer(const std::filesystem::path& file,
                                                              int64_t vocab_size);

}  // namespace dsa
