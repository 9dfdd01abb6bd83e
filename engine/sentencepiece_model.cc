#include "engine/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "base/utf8.h"
#include "dsa/error.h"

namespace dsa {
namespace {

// Of everything but pieces: the library takes some twenty times as much memory for a list of empty
// strings as the file does.
constexpr size_t kMaxSettingsBytes = size_t{4} << 20;
// The library goes back through unused pieces by recursion, one call a merge.
constexpr size_t kMaxPieceBytes = 1024;
constexpr uint32_t kSelfTestData = 4;

enum class Wire : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
    uint32_t number = 0;
    Wire wire = Wire::kVarint;
    uint64_t value = 0;      // kVarint, kFixed64, kFixed32
    std::string_view bytes;  // kBytes
};

// The fields of one message. Throws kInvalidModel for anything that runs out of its bounds, for
// field number 0 and for groups (which this format has none of).
class MessageReader {
  public:
    MessageReader(std::string_view message, std::string where)
        : rest_(message), where_(std::move(where)) {}

    bool next(Field& field) {
        if (rest_.empty()) return false;
        const uint64_t tag = varint();
        field = {};
        field.number = static_cast<uint32_t>(tag >> 3);
        field.wire = static_cast<Wire>(tag & 7);
        if (field.number == 0 || tag > std::numeric_limits<uint32_t>::max()) fail("bad field tag");
        switch (field.wire) {
            case Wire::kVarint:
                field.value = varint();
                return true;
            case Wire::kFixed64:
                field.value = fixed(8);
                return true;
            case Wire::kFixed32:
                field.value = fixed(4);
                return true;
            case Wire::kBytes:
                field.bytes = take(varint());
                return true;
        }
        fail("field " + std::to_string(field.number) + " has the unknown wire type " +
             std::to_string(tag & 7));
    }

    size_t left() const { return rest_.size(); }

    // Throws unless a field whose meaning we know has the wire type that it is written with.
    void expect(const Field& field, Wire wire) const {
        if (field.wire == wire) return;
        fail("field " + std::to_string(field.number) + " has wire type " +
             std::to_string(static_cast<uint32_t>(field.wire)) + ", expected " +
             std::to_string(static_cast<uint32_t>(wire)));
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw_error(ErrorCode::kInvalidModel, where_, ": ", what);
    }

  private:
    std::string_view take(uint64_t count) {
        if (count > rest_.size()) {
            fail("a field of " + std::to_string(count) + " bytes where " +
                 std::to_string(rest_.size()) + " are left");
        }
        const std::string_view bytes = rest_.substr(0, static_cast<size_t>(count));
        rest_.remove_prefix(bytes.size());
        return bytes;
    }

    uint64_t fixed(size_t count) {
        const std::string_view bytes = take(count);
        uint64_t value = 0;
        for (size_t i = 0; i < count; ++i) {
            value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
        }
        return value;
    }

    uint64_t varint() {
        uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const uint8_t byte = static_cast<uint8_t>(take(1)[0]);
            if (shift == 63 && byte > 1) break;
            value |= static_cast<uint64_t>(byte & 0x7f) << shift;
            if (byte < 0x80) return value;
        }
        fail("a varint of more than 64 bits");
    }

    std::string_view rest_;
    std::string where_;
};

Piece scan_piece(std::string_view message, const std::string& where) {
    MessageReader reader(message, where);
    Piece piece;
    for (Field field; reader.next(field);) {
        if (field.number == 1) {
            reader.expect(field, Wire::kBytes);
            piece.text = field.bytes;
        } else if (field.number == 2) {
            reader.expect(field, Wire::kFixed32);
            const float score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
            // The library orders merges by score: a NaN would break the order.
            if (!std::isfinite(score)) reader.fail("the score is not finite");
        } else if (field.number == 3) {
            reader.expect(field, Wire::kVarint);
            if (field.value < 1 || field.value > 6) {
                reader.fail("unknown piece type " + std::to_string(field.value));
            }
            piece.type = static_cast<PieceType>(field.value);
        }
    }
    if (piece.text.empty()) reader.fail("the piece is empty");
    if (piece.text.size() > kMaxPieceBytes)
        reader.fail("the piece has " + std::to_string(piece.text.size()) +
                    " bytes, expected at most " + std::to_string(kMaxPieceBytes));
    // The library's tries take pieces as NUL-terminated, whole UTF-8 characters.
    for (std::string_view rest = piece.text; !rest.empty();) {
        const Utf8Unit unit = next_utf8(rest);
        if (unit.state != Utf8State::kValid) reader.fail("the piece is not valid UTF-8");
        if (rest[0] == '\0') reader.fail("the piece contains a NUL byte");
        rest.remove_prefix(unit.bytes);
    }
    return piece;
}

// Of normalizer_spec and denormalizer_spec: returns add_dummy_prefix.
bool scan_normalizer(std::string_view message, const std::string& where, bool add_dummy_prefix) {
    MessageReader reader(message, where);
    for (Field field; reader.next(field);) {
        if (field.number == 2) {
            reader.expect(field, Wire::kBytes);
            if (!field.bytes.empty()) {
                throw_error(ErrorCode::kUnsupported, where, ".precompiled_charsmap: a table of ",
                            field.bytes.size(),
                            " bytes, expected none: models with a precompiled normalisation table "
                            "are not supported");
            }
        } else if (field.number == 3) {
            reader.expect(field, Wire::kVarint);
            add_dummy_prefix = field.value != 0;
        }
    }
    return add_dummy_prefix;
}

void check_message(std::string_view message, const std::string& where) {
    MessageReader reader(message, where);
    for (Field field; reader.next(field);) {
    }
}

}  // namespace

SentencePieceModel scan_sentencepiece_model(std::string_view model, const std::string& file,
                                            int64_t max_pieces) {
    SentencePieceModel scan;
    size_t settings = 0;
    MessageReader reader(model, file);
    size_t begin = 0;
    for (Field field; reader.next(field);) {
        const size_t end = model.size() - reader.left();
        if (field.number != kSelfTestData) scan.bytes += model.substr(begin, end - begin);
        begin = end;
        if (field.number >= 1 && field.number <= 5) reader.expect(field, Wire::kBytes);
        if (field.number != 1) settings += field.bytes.size();
        if (settings > kMaxSettingsBytes)
            reader.fail("more than " + std::to_string(kMaxSettingsBytes) +
                        " bytes beside the pieces");
        switch (field.number) {
            case 1:
                if (++scan.num_pieces > max_pieces) break;
                scan.pieces.push_back(scan_piece(
                    field.bytes, file + ": piece " + std::to_string(scan.pieces.size())));
                break;
            case 2:
                check_message(field.bytes, file + ": trainer_spec");
                break;
            case 3:
                scan.add_dummy_prefix =
                    scan_normalizer(field.bytes, file + ": normalizer_spec", scan.add_dummy_prefix);
                break;
            case kSelfTestData:
                check_message(field.bytes, file + ": self_test_data");
                break;
            case 5:
                scan_normalizer(field.bytes, file + ": denormalizer_spec", false);
                break;
            default:
                break;
        }
    }
    return scan;
}

}  // namespace dsa
