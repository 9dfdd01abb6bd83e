// Detokenisation of a stream: whole UTF-8 characters, whatever the tokens are.

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "dsa/error.h"
#include "dsa/tokenizer.h"
#include "testing/expect_error.h"
#include "testing/tokenizer_files.h"

namespace dsa {
namespace {

using namespace std::string_literals;
using namespace testing;  // the files and pieces of tokenizer_files.h

// Tokens are single bytes; 256 is a control token.
class ByteTokenizer final : public Tokenizer {
  public:
    int64_t vocab_size() const override { return 257; }
    std::vector<int32_t> encode(std::string_view text) const override {
        std::vector<int32_t> ids;
        for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
        return ids;
    }
    std::string token_bytes(int32_t id) const override {
        return id == 256 ? "" : std::string(1, static_cast<char>(id));
    }
    std::string piece(int32_t id) const override { return std::to_string(id); }
    bool is_special(int32_t id) const override { return id == 256; }
    std::optional<int32_t> find_special(std::string_view) const override { return 256; }
};

TEST(StreamDecoder, MalformedUtf8IsReplacedByMaximalSubparts) {
    const std::string r = "\ufffd";
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"plain", "plain"},
        {"\u00e9\u20ac\U0001f600", "\u00e9\u20ac\U0001f600"},
        {"\xf4\x8f\xbf\xbf", "\U0010ffff"},
        {"\x80", r},
        {"\xc3", r},
        {"\xc3(", r + "("},
        {"\xc0\xaf", r + r},
        {"\xe0\x9f\xbf", r + r + r},
        {"\xed\xa0\x80", r + r + r},
        {"\xf4\x90\x80\x80", r + r + r + r},
        {"\xf5", r},
        {"\xe2\x82", r},
        {"\xe2\x82"
         "A",
         r + "A"},
        {"\xf0\x9f\x98"
         "A",
         r + "A"},
        {"\xf0\x9f\xe2\x82\xac", r + "\u20ac"},
        // The Unicode standard's own example (table 3-8 in version 15).
        {"\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64",
         "a" + r + r + r + "b" + r + "c" + r + r + "d"},
    };
    const ByteTokenizer tokenizer;
    for (const auto& [bytes, expected] : cases) {
        const std::vector<int32_t> ids = tokenizer.encode(bytes);
        EXPECT_EQ(tokenizer.decode(ids), expected);
        StreamDecoder decoder(tokenizer);
        std::string text;
        for (const int32_t id : ids) {
            text += decoder.push(id);
            EXPECT_EQ(decoder.push(256), "");
        }
        EXPECT_EQ(text + decoder.finish(), expected);
        EXPECT_EQ(decoder.finish(), "");
    }
}

TEST(StreamDecoder, EmitsWholeCharactersAsSoonAsTheyAreComplete) {
    const ByteTokenizer tokenizer;
    StreamDecoder decoder(tokenizer);
    std::vector<std::string> pieces;
    for (const int32_t id : tokenizer.encode("a\u20ac\xe2z")) pieces.push_back(decoder.push(id));
    EXPECT_EQ(pieces, (std::vector<std::string>{"a", "", "", "\u20ac", "", "\ufffdz"}));
    EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, RandomTokensOfTheBuiltInModel) {
    std::mt19937_64 random(2);
    for (int round = 0; round < 200; ++round) {
        std::vector<int32_t> ids(64);
        // Half of them bytes, so that characters form and break.
        for (int32_t& id : ids) {
            id = static_cast<int32_t>(random() % 2 == 0 ? 7 + random() % 256 : random() % 8192);
        }
        StreamDecoder decoder(mini());
        std::string text;
        for (const int32_t id : ids) text += decoder.push(id);
        text += decoder.finish();
        EXPECT_EQ(text, mini().decode(ids));
        const ByteTokenizer bytes;
        EXPECT_EQ(bytes.decode(bytes.encode(text)), text) << "not valid UTF-8";
    }
}

}  // namespace
}  // namespace dsa
