// tokenizer.model: of another vocabulary, with settings that it must not have, and damaged.

#include <random>
#include <utility>

#include "fuzz/mutations.h"
#include "testing/tokenizer_files.h"

namespace dsa::testing {
namespace {

constexpr auto kEither = Expect::kEither;
constexpr auto kRefused = Expect::kRefused;

void add_appended(Mutations& list, const std::string& name, const std::string& bytes, Expect expect,
                  std::vector<std::string> parts = {}) {
    if (expect == kRefused) parts.emplace_back(kTokenizer);
    add_edit(
        list, kTokenizer, name, [bytes](std::string& s) { s += bytes; }, expect, std::move(parts));
}

void add_vocabularies(Mutations& list) {
    add_edit(list, kTokenizer, "of another vocabulary", [](std::string& s) { s = real_model(); },
             kRefused, {kTokenizer, "8192 pieces, expected at most the model's vocab_size of 301"});
    std::string many;
    for (int i = 0; i < 100000; ++i) many += piece_field("p" + std::to_string(i), kNormal);
    add_appended(list, "100000 pieces more", many, kRefused, {"100280 pieces"});
    add_edit(
        list, kTokenizer, "of few pieces",
        [](std::string& s) {
            s = piece_field("<unk>", kUnknown) + piece_field("a", kNormal) + trainer(kBpe, false);
        },
        Expect::kOpens);
    add_edit(list, kTokenizer, "without an unknown piece",
             [](std::string& s) { s = piece_field("a", kNormal) + trainer(kBpe, false); }, kRefused,
             {kTokenizer});
    add_appended(list, "a piece of 1025 bytes", piece_field(std::string(1025, 'q'), kNormal),
                 kRefused, {"piece 280", "1025 bytes, expected at most 1024"});
    add_appended(list, "a piece of a megabyte", piece_field(std::string(1 << 20, 'q'), kNormal),
                 kRefused, {"piece 280"});
    // Unused pieces are undone merge by merge.
    std::string chain;
    for (size_t n = 2; n <= 20; ++n) chain += piece_field(std::string(n, 'a'), 5);
    add_appended(list, "a chain of unused pieces", chain, Expect::kOpens);
    std::string controls;
    for (const char* text : {"a ", "b", " ", "\u2581a", "c", ","})
        controls += piece_field(text, kControl);
    add_appended(list, "control pieces of plain text", controls, kEither);
    add_appended(list, "a control piece that is a space", piece_field("\u2581x", kControl),
                 kEither);
}

void add_settings(Mutations& list) {
    add_appended(list, "five megabytes of samples", bytes_field(4, std::string(5 << 20, '\0')),
                 kRefused, {"4194304 bytes beside the pieces"});
    std::string empty_strings;
    for (int i = 0; i < 2'000'000; ++i) empty_strings.append("\x0a\x00", 2);
    add_appended(list, "two million empty settings", bytes_field(2, empty_strings), kEither);
    add_appended(list, "a normalisation table",
                 bytes_field(3, bytes_field(2, std::string(64, '\1'))), kRefused,
                 {"precompiled_charsmap"});
    for (uint64_t type = 0; type < 8; ++type)
        for (const bool bytes : {false, true})
            add_appended(list, "model type " + std::to_string(type) + (bytes ? " with bytes" : ""),
                         trainer(type, bytes), kEither);
    for (uint64_t field = 1; field < 60; ++field)
        for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{UINT32_MAX}, UINT64_MAX})
            add_appended(list,
                         "trainer field " + std::to_string(field) + " = " + std::to_string(value),
                         bytes_field(2, number_field(field, value)), kEither);
    for (uint64_t field = 1; field < 8; ++field)
        for (const uint64_t value : {uint64_t{0}, uint64_t{1}, UINT64_MAX})
            add_appended(
                list, "normalizer field " + std::to_string(field) + " = " + std::to_string(value),
                bytes_field(3, number_field(field, value)), kEither);
    for (const uint64_t field : {7U, 44U, 45U, 46U, 47U, 48U})  // strings of the trainer
        for (const std::string& text : {std::string(), std::string("\xff\x00", 2),
                                        std::string(100000, 'u'), std::string("\x1b[2J")})
            add_appended(list,
                         "trainer field " + std::to_string(field) + " of " +
                             std::to_string(text.size()) + " bytes",
                         bytes_field(2, bytes_field(field, text)), kEither);
    const auto sample = [](const std::string& input, const std::string& expected) {
        return bytes_field(4, bytes_field(1, bytes_field(1, input) + bytes_field(2, expected)));
    };
    add_appended(list, "a sample that comes out otherwise", sample("ab", "zz"), Expect::kOpens);
    add_appended(list, "a sample of a megabyte", sample(std::string(1 << 20, 'a'), "zz"),
                 Expect::kOpens);
    add_appended(list, "a sample that is not UTF-8", sample("\xff\xfe\x80", "\xff"),
                 Expect::kOpens);
}

void add_damage(Mutations& list) {
    std::mt19937_64 random(17);
    for (int i = 0; i < 120; ++i) {
        const uint64_t place = random();
        const uint64_t what = random();
        add_edit(list, kTokenizer, "damaged at random, number " + std::to_string(i),
                 [=](std::string& s) {
                     // Half of it where the settings are.
                     const size_t at = i % 2 == 0 ? place % s.size() : s.size() - 1 - place % 40;
                     if (i % 3 == 0) {
                         s.erase(at, 1 + what % 20);
                     } else if (i % 3 == 1) {
                         s[at] = static_cast<char>(what);
                     } else {
                         s.insert(at, s, what % s.size(), 1 + what % 90);
                     }
                 },
                 kEither, {kTokenizer});
    }
}

}  // namespace

void add_tokenizer_mutations(Mutations& list) {
    add_vocabularies(list);
    add_settings(list);
    add_damage(list);
}

}  // namespace dsa::testing
