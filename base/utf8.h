#pragma once
// One step of UTF-8 decoding (Unicode 15, table 3-7). Malformed text is cut into maximal subparts,
// each of which stands for one U+FFFD, as the standard recommends and most decoders do.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dsa {

inline constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";  // U+FFFD

enum class Utf8State {
    kValid,       // a whole character
    kInvalid,     // bytes that no continuation can make valid
    kIncomplete,  // the text ends within a character that is valid so far
};

struct Utf8Unit {
    Utf8State state;
    size_t bytes;  // length of the unit, at least 1
};

// The first unit of a text that is not empty.
inline Utf8Unit next_utf8(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t lead = byte(0);
    if (lead < 0x80) return {Utf8State::kValid, 1};
    if (lead < 0xc2 || lead > 0xf4) return {Utf8State::kInvalid, 1};
    const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    // The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF.
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < length; ++i) {
        if (i == text.size()) return {Utf8State::kIncomplete, i};
        if (byte(i) < low || byte(i) > high) return {Utf8State::kInvalid, i};
        low = 0x80;
        high = 0xbf;
    }
    return {Utf8State::kValid, length};
}

}  // namespace dsa
