#pragma once
// What the tokenizer needs of a SentencePiece model file, read with our own bounds checks before
// the library sees the bytes: the library trusts the file in places (normalisation tables, piece
// spelling).
//
// sentencepiece_model.proto: ModelProto { repeated SentencePiece pieces = 1; TrainerSpec = 2;
// NormalizerSpec normalizer_spec = 3; SelfTestData = 4; NormalizerSpec denormalizer_spec = 5; }
// SentencePiece { string piece = 1; float score = 2; Type type = 3; }
// NormalizerSpec { bytes precompiled_charsmap = 2; bool add_dummy_prefix = 3; }

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsa {

enum class PieceType : uint64_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6,
};

struct Piece {
    std::string text;  // valid UTF-8, not empty, without NUL
    PieceType type = PieceType::kNormal;
};

struct SentencePieceModel {
    std::vector<Piece> pieces;     // at most max_pieces
    int64_t num_pieces = 0;        // that the file has
    bool add_dummy_prefix = true;  // the format's default
    // The file without its samples, which the library tokenises when it loads them, and prints.
    std::string bytes;
};

// Throws kInvalidModel for a damaged file, kUnsupported for a precompiled normalisation table;
// `file` is named in the message. Pieces beyond max_pieces are counted, not read.
SentencePieceModel scan_sentencepiece_model(std::string_view model, const std::string& file,
                                            int64_t max_pieces);

}  // namespace dsa
