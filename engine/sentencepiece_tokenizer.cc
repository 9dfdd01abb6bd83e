#include "engine/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <array>
#include <map>
#include <string>
#include <utility>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "dsa/error.h"
#include "engine/sentencepiece_model.h"

namespace dsa {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";     // U+2581, a space in a piece
constexpr std::string_view kFullwidthBar = "\xef\xbd\x9c";  // U+FF5C
constexpr size_t kMaxModelBytes = size_t{1} << 30;          // protobuf's own limit is 2 GiB
constexpr size_t kMaxTextBytes = size_t{1} << 30;           // the library counts in int

bool is_marker(std::string_view piece) {
    return (piece.size() > 2 && piece.front() == '<' && piece.back() == '>') ||
           (piece.size() > 2 * kFullwidthBar.size() && piece.starts_with(kFullwidthBar) &&
            piece.ends_with(kFullwidthBar));
}

// The value of "<0xE4>"; -1 if it isn't spelled so.
int parse_byte_piece(std::string_view piece) {
    if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
    int value = 0;
    for (const char c : piece.substr(3, 2)) {
        if (c >= '0' && c <= '9') {
            value = value * 16 + (c - '0');
        } else if (c >= 'A' && c <= 'F') {
            value = value * 16 + (c - 'A' + 10);
        } else {
            return -1;
        }
    }
    return value;
}

std::string running_text(std::string_view piece) {
    std::string text;
    while (!piece.empty()) {
        const size_t bytes = next_utf8(piece).bytes;
        text += piece.starts_with(kSpaceMark) ? std::string_view(" ") : piece.substr(0, bytes);
        piece.remove_prefix(bytes);
    }
    return text;
}

void load(sentencepiece::SentencePieceProcessor& processor, std::string_view model,
          const std::string& file) {
    try {
        const auto status = processor.LoadFromSerializedProto({model.data(), model.size()});
        if (status.ok()) return;
        throw_error(ErrorCode::kInvalidModel, file, ": ", status.ToString());
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {  // the trie builder throws its own
        throw_error(ErrorCode::kInvalidModel, file, ": ", error.what());
    }
}

class SentencePieceTokenizer final : public Tokenizer {
  public:
    SentencePieceTokenizer(SentencePieceModel scan, const std::string& file)
        : pieces_(std::move(scan.pieces)) {
        load(processor_, scan.bytes, file);
        if (static_cast<size_t>(processor_.GetPieceSize()) != pieces_.size()) {
            throw_error(ErrorCode::kInvalidModel, file, ": the library finds ",
                        processor_.GetPieceSize(), " pieces, expected ", pieces_.size());
        }
        if (scan.add_dummy_prefix) {
            // A message field that appears again is merged, its scalars replaced.
            constexpr std::string_view kNoDummyPrefix("\x1a\x02\x18\x00", 4);
            load(continuation_, scan.bytes += kNoDummyPrefix, file);
        }
        add_dummy_prefix_ = scan.add_dummy_prefix;
        classify(file);
    }

    int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }

    std::vector<int32_t> encode(std::string_view text) const override {
        if (text.size() > kMaxTextBytes) {
            throw_error(ErrorCode::kInvalidArgument, "a text of ", text.size(),
                        " bytes to tokenise, expected at most ", kMaxTextBytes);
        }
        std::vector<int32_t> ids;
        size_t run = 0;  // start of what goes to the library in one piece
        for (size_t at = 0; at < text.size();) {
            const Utf8Unit unit = next_utf8(text.substr(at));
            const std::string_view bytes = text.substr(at, unit.bytes);
            if (has_byte_pieces_ && (unit.state != Utf8State::kValid || bytes == kSpaceMark)) {
                append_run(text.substr(run, at - run), run == 0, ids);
                append_bytes(bytes, ids);
                run = at + unit.bytes;
            }
            at += unit.bytes;
        }
        append_run(text.substr(run), run == 0, ids);
        return ids;
    }

    std::string token_bytes(int32_t id) const override { return texts_[index(id)]; }
    std::string piece(int32_t id) const override { return pieces_[index(id)].text; }
    bool is_special(int32_t id) const override { return special_[index(id)]; }

    std::optional<int32_t> find_special(std::string_view piece) const override {
        const auto found = special_ids_.find(piece);
        if (found == special_ids_.end()) return std::nullopt;
        return found->second;
    }

  private:
    void classify(const std::string& file) {
        byte_ids_.fill(-1);
        int num_byte_pieces = 0;
        for (size_t i = 0; i < pieces_.size(); ++i) {
            const auto& [text, type] = pieces_[i];
            const int32_t id = static_cast<int32_t>(i);
            const bool special =
                type == PieceType::kControl || (type == PieceType::kUserDefined && is_marker(text));
            special_.push_back(special);
            if (special) {
                special_ids_.emplace(text, id);
                texts_.emplace_back();
            } else if (type == PieceType::kUnknown) {
                unknown_id_ = id;
                texts_.emplace_back(kReplacementCharacter);
            } else if (type == PieceType::kByte) {
                const int byte = parse_byte_piece(text);
                if (byte < 0) {
                    throw_error(ErrorCode::kInvalidModel, file, ": piece ", i, " is ", text,
                                ", expected a byte such as <0x0A>");
                }
                num_byte_pieces += byte_ids_[static_cast<size_t>(byte)] < 0;
                byte_ids_[static_cast<size_t>(byte)] = id;
                texts_.emplace_back(1, static_cast<char>(byte));
            } else {
                texts_.push_back(running_text(text));
            }
        }
        has_byte_pieces_ = num_byte_pieces == 256;
    }

    size_t index(int32_t id) const {
        if (id < 0 || static_cast<size_t>(id) >= pieces_.size()) {
            throw_error(ErrorCode::kInvalidArgument, "token id ", id,
                        " is outside of the tokenizer's vocabulary of ", pieces_.size());
        }
        return static_cast<size_t>(id);
    }

    void append_bytes(std::string_view bytes, std::vector<int32_t>& ids) const {
        for (const char c : bytes) {
            ids.push_back(has_byte_pieces_ ? byte_ids_[static_cast<uint8_t>(c)] : unknown_id_);
        }
    }

    // Text that the library may see as it is. Only the start of a text takes the model's dummy
    // prefix.
    void append_run(std::string_view run, bool first, std::vector<int32_t>& ids) const {
        if (run.empty()) return;
        const auto& processor = first || !add_dummy_prefix_ ? processor_ : continuation_;
        sentencepiece::ImmutableSentencePieceText tokens;
        if (!processor.Encode({run.data(), run.size()}, tokens.mutable_proto()).ok()) {
            // A control piece was reached by text: the library's bookkeeping fails there.
            return append_cut(run, first, {middle(run)}, ids);
        }
        const size_t old_size = ids.size();
        std::vector<size_t> cuts;
        for (size_t i = 0; i < tokens.pieces_size(); ++i) {
            const auto token = tokens.pieces(static_cast<int>(i));
            const int32_t id = static_cast<int32_t>(token.id());
            ids.push_back(id);
            if (special_[index(id)]) cuts.push_back(token.begin());
        }
        if (cuts.empty()) return;
        ids.resize(old_size);
        append_cut(run, first, cuts, ids);
    }

    // A run in which special tokens begin at these offsets: tokenised again in parts, cut before
    // and behind the first character of each. A special token of one character becomes bytes.
    void append_cut(std::string_view run, bool first, const std::vector<size_t>& cuts,
                    std::vector<int32_t>& ids) const {
        const size_t first_character = next_utf8(run).bytes;
        if (first_character == run.size()) return append_bytes(run, ids);
        size_t begin = 0;
        const auto part = [&](size_t end) {
            if (end <= begin) return;
            append_run(run.substr(begin, end - begin), first && begin == 0, ids);
            begin = end;
        };
        for (const size_t cut : cuts) {
            if (cut >= run.size()) continue;
            const size_t end = cut + next_utf8(run.substr(cut)).bytes;
            part(cut);
            part(end);
        }
        if (begin == 0) part(first_character);
        part(run.size());
    }

    static size_t middle(std::string_view run) {
        size_t at = run.size() / 2;
        while (at > 0 && (static_cast<uint8_t>(run[at]) & 0xc0) == 0x80) --at;
        return at;
    }

    sentencepiece::SentencePieceProcessor processor_;
    // The same without the dummy prefix; empty for a model that adds none.
    sentencepiece::SentencePieceProcessor continuation_;
    bool add_dummy_prefix_ = false;
    std::vector<Piece> pieces_;
    std::vector<std::string> texts_;  // token_bytes
    std::vector<bool> special_;
    std::map<std::string, int32_t, std::less<>> special_ids_;
    std::array<int32_t, 256> byte_ids_;
    bool has_byte_pieces_ = false;
    int32_t unknown_id_ = -1;
};

}  // namespace

std::unique_ptr<const Tokenizer> open_sentencepiece_tokenizer(const std::filesystem::path& file,
                                                              int64_t vocab_size) {
    const MappedFile mapped(file);
    const auto bytes = mapped.bytes();
    if (bytes.size() > kMaxModelBytes) {
        throw_error(ErrorCode::kInvalidModel, file.string(), ": ", bytes.size(),
                    " bytes, expected at most ", kMaxModelBytes);
    }
    const std::string_view model(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    SentencePieceModel scan = scan_sentencepiece_model(model, file.string(), vocab_size);
    if (scan.num_pieces > vocab_size) {
        throw_error(ErrorCode::kInvalidModel, file.string(), ": ", scan.num_pieces,
                    " pieces, expected at most the model's vocab_size of ", vocab_size);
    }
    return std::make_unique<SentencePieceTokenizer>(std::move(scan), file.string());
}

}  // namespace dsa
