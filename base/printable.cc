#include "base/printable.h"

#include <cstdint>

#include "base/utf8.h"

namespace dsa {
namespace {

constexpr std::string_view kCut = " ... ";

bool continues(char c) {
    return (static_cast<uint8_t>(c) & 0xc0) == 0x80;
}

// C0, DEL, and C1, which terminals take for commands too.
bool is_control(std::string_view character) {
    const auto lead = static_cast<uint8_t>(character[0]);
    if (character.size() == 1) return lead < 0x20 || lead == 0x7f;
    return lead == 0xc2 && static_cast<uint8_t>(character[1]) < 0xa0;
}

void append_escaped(std::string_view text, std::string& out) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    while (!text.empty()) {
        const Utf8Unit unit = next_utf8(text);
        const std::string_view bytes = text.substr(0, unit.bytes);
        text.remove_prefix(unit.bytes);
        if (unit.state == Utf8State::kValid && !is_control(bytes)) {
            out += bytes;
            continue;
        }
        for (const char c : bytes) {
            const auto byte = static_cast<uint8_t>(c);
            out += "\\x";
            out += kHex[byte >> 4];
            out += kHex[byte & 15];
        }
    }
}

}  // namespace

std::string printable(std::string_view text, size_t limit) {
    std::string out;
    if (text.size() <= limit) {
        append_escaped(text, out);
        return out;
    }
    // Two thirds of the beginning, one of the end, both moved off the middle of a character.
    const size_t kept = limit < kCut.size() ? 0 : limit - kCut.size();
    size_t tail = kept / 3;
    size_t head = kept - tail;
    for (int i = 0; i < 3 && head > 0 && continues(text[head]); ++i) --head;
    for (int i = 0; i < 3 && tail > 0 && continues(text[text.size() - tail]); ++i) --tail;
    append_escaped(text.substr(0, head), out);
    out += kCut;
    append_escaped(text.substr(text.size() - tail), out);
    return out;
}

}  // namespace dsa
