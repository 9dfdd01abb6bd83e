// Tokenizer files that must be refused, and damaged ones, which must not crash.

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

TEST(TokenizerFile, NoTokenizer) {
    EXPECT_EQ(open_tokenizer(fs::path(DSA_TEST_DATA) / "golden" / "checkpoints" / "tiny-rand", 256),
              nullptr);
    EXPECT_EQ(open_tokenizer("/no/such/folder", 256), nullptr);
}

TEST(TokenizerFile, TooManyPieces) {
    expect_error([] { open_tokenizer(kModel, 8191); }, ErrorCode::kInvalidModel,
                 {"tokenizer.model", "8192", "8191"});
    EXPECT_EQ(open_tokenizer(kModel, 129280)->vocab_size(), 8192);
}

TEST(TokenizerFile, PrecompiledNormalisationTables) {
    for (const uint64_t field : {3U, 5U}) {
        const std::string table = bytes_field(field, bytes_field(2, std::string(24, '\x01')));
        const std::string name = field == 3 ? " normalizer_spec" : "denormalizer_spec";
        const auto refused = [&](const std::string& model) {
            expect_error([&] { open_bytes(model); }, ErrorCode::kUnsupported,
                         {"tokenizer.model", name, "precompiled_charsmap", "24 bytes"});
        };
        refused(table + real_model());
        refused(real_model() + table);
    }
}

TEST(TokenizerFile, WrongPieces) {
    const auto refused = [](const std::string& addition, const std::string& part) {
        expect_error([&] { open_bytes(real_model() + addition, 8200); }, ErrorCode::kInvalidModel,
                     {"tokenizer.model", part});
    };
    refused(piece_field("the", kNormal), "the is already defined");
    refused(piece_field("", kNormal), "piece 8192: the piece is empty");
    refused(piece_field("<unk2>", kUnknown), "unk is already defined");
    refused(piece_field("new", 7), "unknown piece type 7");
    refused(piece_field("new", kNormal, 0x7fc00000), "score is not finite");
    refused(piece_field("new", kNormal, 0xff800000), "score is not finite");
    refused(piece_field("a\0b"s, kNormal), "NUL");
    refused(piece_field("a\xff", kNormal), "not valid UTF-8");
    refused(piece_field("\xe2\x96", kNormal), "not valid UTF-8");
    refused(piece_field("<0x41>x", 6), "<0x41>x");
    refused("\x0a"s + varint(UINT64_MAX), "18446744073709551615 bytes");
    refused("\x0a"s, "1 bytes");
    refused("\x0b"s, "wire type 3");
    refused("\x02\x00"s, "bad field tag");
    refused("\x08"s + std::string(9, '\xff') + "\x02", "64 bits");
    refused("\x18\x01"s, "wire type 0, expected 2");
    for (const std::string& model : {""s, trainer(kBpe, false), piece_field("a", kNormal)}) {
        expect_error([&] { open_bytes(model); }, ErrorCode::kInvalidModel, {"tokenizer.model"});
    }
}

// Whatever happens to the file: an error that names it, or a tokenizer that works.
void expect_survives(const std::string& model) {
    try {
        const auto tokenizer = open_bytes(model);
        const std::string text = "Hello, <think> who\u2581are  you? \u65e5 \xff " + kUser;
        for (const int32_t id : tokenizer->encode(text)) {
            EXPECT_FALSE(tokenizer->is_special(id));
        }
        std::vector<int32_t> ids(static_cast<size_t>(tokenizer->vocab_size()));
        for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
        EXPECT_GT(tokenizer->decode(ids).size(), 1000U);
    } catch (const Error& e) {
        EXPECT_TRUE(e.code() == ErrorCode::kInvalidModel || e.code() == ErrorCode::kUnsupported)
            << e.what();
        EXPECT_NE(std::string(e.what()).find("tokenizer.model"), std::string::npos) << e.what();
    }
}

TEST(TokenizerFile, DamagedFilesNeverCrash) {
    std::mt19937_64 random(3);
    const std::string& real = real_model();
    const size_t tail = 600;  // trainer and normalizer settings
    for (int i = 0; i < 60; ++i) {
        std::string model = real;
        for (uint64_t n = 1 + random() % 4; n > 0; --n) {
            model[random() % model.size()] ^= static_cast<char>(1 << (random() % 8));
        }
        expect_survives(model);
        model = real;
        model[model.size() - 1 - random() % tail] ^= static_cast<char>(1 << (random() % 8));
        expect_survives(model);
        expect_survives(real.substr(0, random() % real.size()));
        model = real;
        model.erase(random() % model.size(), 1 + random() % 30);
        expect_survives(model);
        model = real;
        // A type byte or what looks like one.
        const size_t at = model.find('\x18', random() % (model.size() - tail));
        model[at + 1] = static_cast<char>(1 + random() % 6);
        expect_survives(model + trainer(1 + random() % 4, random() % 2 == 0));
    }
}

}  // namespace
}  // namespace dsa
