#pragma once
// Text of unknown origin (names in a file, a parser's message) made fit for a message or a
// terminal.

#include <cstddef>
#include <string>
#include <string_view>

namespace dsa {

// Control characters and bytes that are not UTF-8 become \x1B and the like; of a text that is
// longer than `limit` bytes the middle is left out. The result is valid UTF-8, one line, and at
// most four times the limit long.
std::string printable(std::string_view text, size_t limit = 200);

}  // namespace dsa
