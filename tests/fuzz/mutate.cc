// Mutations of bytes that know JSON and length-prefixed messages a little.

#include <algorithm>
#include <cctype>
#include <string_view>

#include "fuzz/fuzz_target.h"

namespace dsa::testing {
namespace {

class Mutator {
  public:
    Mutator(std::string& s, const std::string& other, const std::vector<std::string>& words,
            uint64_t (*random)())
        : s_(s), other_(other), words_(words), random_(random) {}

    void step() {
        switch (random_() % 13) {
            case 0:
                return flip();
            case 1:
                return set_bytes();
            case 2:
                return erase();
            case 3:
                return duplicate();
            case 4:
                return splice();
            case 5:
            case 6:
                return change_number();
            case 7:
            case 8:
                return replace_token();
            case 9:
                return insert_word();
            case 10:
                return duplicate_member();
            case 11:
                return change_length();
            default:
                return nest();
        }
    }

  private:
    size_t below(size_t n) { return n == 0 ? 0 : static_cast<size_t>(random_() % n); }
    size_t place() { return below(s_.size() + 1); }

    void flip() {
        if (!s_.empty()) s_[below(s_.size())] ^= static_cast<char>(1U << (random_() % 8));
    }
    void set_bytes() {
        static constexpr uint8_t kValues[] = {0,    1,   0x7f, 0x80, 0xff, '"',
                                              '\\', '{', '}',  '[',  ']'};
        for (size_t n = 1 + below(4); n > 0 && !s_.empty(); --n)
            s_[below(s_.size())] =
                static_cast<char>(random_() % 2 == 0 ? random_() : kValues[below(sizeof(kValues))]);
    }
    void erase() { s_.erase(place(), 1 + below(random_() % 4 == 0 ? 400 : 8)); }
    void duplicate() {
        const std::string part = s_.substr(place(), 1 + below(random_() % 4 == 0 ? 400 : 12));
        s_.insert(place(), part);
    }
    void splice() {
        const std::string part = other_.substr(below(other_.size() + 1), 1 + below(200));
        const size_t at = place();
        if (random_() % 2 == 0) s_.erase(at, part.size());
        s_.insert(at, part);
    }

    // A number in the text, or eight bytes of the file, becomes an interesting one.
    void change_number() {
        static constexpr std::string_view kNumbers[] = {"0",
                                                        "-1",
                                                        "1",
                                                        "2",
                                                        "64",
                                                        "65536",
                                                        "16777216",
                                                        "1073741824",
                                                        "2147483647",
                                                        "4294967296",
                                                        "1e308",
                                                        "0.5",
                                                        "1e-320",
                                                        "-0",
                                                        "9223372036854775807",
                                                        "9223372036854775808",
                                                        "18446744073709551615",
                                                        "1e999"};
        size_t at = place();
        const auto digit = [&](size_t i) {
            return i < s_.size() && std::isdigit(static_cast<unsigned char>(s_[i])) != 0;
        };
        while (at < s_.size() && !digit(at)) ++at;
        size_t end = at;
        while (digit(end)) ++end;
        if (at == end) return change_length();
        if (random_() % 4 == 0) {  // one digit only
            s_[at + below(end - at)] = static_cast<char>('0' + random_() % 10);
        } else {
            s_.replace(at, end - at, kNumbers[below(std::size(kNumbers))]);
        }
    }

    // A JSON token becomes another kind of value.
    void replace_token() {
        static constexpr std::string_view kTokens[] = {
            "null",      "true", "[]", "{}",          "\"\"",           "\"x\"",    "[0]", "[[]]",
            "{\"x\":1}", "-1",   "0",  "\"\\u0000\"", "\"\\u001b[2J\"", "\"../x\"", "NaN"};
        size_t at = s_.find(':', place());
        if (at == std::string::npos) return insert_word();
        ++at;
        const size_t end = std::min(s_.size(), s_.find_first_of(",}]", at));
        s_.replace(at, end - at, kTokens[below(std::size(kTokens))]);
    }
    void insert_word() {
        if (words_.empty()) return;
        const std::string& word = words_[below(words_.size())];
        const size_t at = place();
        if (random_() % 2 == 0) s_.erase(at, word.size());
        s_.insert(at, word);
    }
    // A piece between two commas, once more somewhere behind a comma.
    void duplicate_member() {
        const size_t begin = s_.find(',', place());
        if (begin == std::string::npos) return;
        const size_t end = s_.find(',', begin + 1);
        const std::string part = s_.substr(begin, end == std::string::npos ? 40 : end - begin);
        s_.insert(std::min(s_.size(), s_.find(',', place())), part);
    }
    // The length in front of a header: that of what follows, nearly, or anything.
    void change_length() {
        if (s_.size() < 8) return;
        const uint64_t lengths[] = {s_.size() - 8, s_.size() - 9,
                                    s_.size(),     random_() % (2 * s_.size()),
                                    random_(),     uint64_t{1} << (random_() % 64)};
        // The right one most of the time, so that what is inside counts.
        const uint64_t length = lengths[random_() % 3 != 0 ? 0 : below(std::size(lengths))];
        for (size_t i = 0; i < 8; ++i) s_[i] = static_cast<char>(length >> (8 * i));
    }
    void nest() {
        const size_t depth = 1 + below(40);
        const size_t at = place();
        s_.insert(at, std::string(depth, ']'));
        s_.insert(at, std::string(depth, '['));
    }

    std::string& s_;
    const std::string& other_;
    const std::vector<std::string>& words_;
    uint64_t (*random_)();
};

}  // namespace

std::string mutate(const std::string& input, const std::string& other,
                   const std::vector<std::string>& words, size_t max_size, uint64_t (*random)()) {
    std::string s = input;
    Mutator mutator(s, other, words, random);
    for (uint64_t n = 1 + random() % (random() % 4 == 0 ? 8 : 2); n > 0; --n) mutator.step();
    if (s.size() > max_size) s.resize(max_size);
    return s;
}

}  // namespace dsa::testing
