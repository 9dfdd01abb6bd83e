// Safetensors files: reading, and every kind of damage to length, header and data.

#include "dsa/safetensors.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "dsa/error.h"
#include "testing/checkpoint_builder.h"
#include "testing/expect_error.h"

namespace dsa {
namespace {

using testing::expect_error;
using testing::TempDir;
using testing::write_safetensors;

class Safetensors : public ::testing::Test {
  protected:
    // A file of a header as text and some bytes of data.
    void write(const std::string& header, size_t data_bytes) {
        write_raw(header.size(), header + std::string(data_bytes, '\1'));
    }
    void write_raw(uint64_t length, const std::string& rest) {
        std::ofstream out(path_, std::ios::binary);
        for (int i = 0; i < 8; ++i) out.put(static_cast<char>(length >> (8 * i)));
        out << rest;
    }
    void expect_refused(const std::vector<std::string>& parts) {
        auto all = parts;
        all.push_back(path_.string());
        expect_error([&] { SafetensorsFile{path_}; }, ErrorCode::kInvalidModel, all);
    }

    TempDir dir_;
    std::filesystem::path path_ = dir_ / "file.safetensors";
};

TEST_F(Safetensors, ReadsTensors) {
    write_safetensors(path_,
                      {{"f", "F32", {2}, {0, 0, 128, 63, 0, 0, 0, 192}},
                       {"i", "I16", {2, 1}, {255, 255, 2, 1}},
                       {"empty", "I64", {0, 4}, {}},
                       {"scalar", "I32", {}, {7, 0, 0, 0}},
                       {"odd", "F6", {3}, {1, 2}}},
                      true);
    const SafetensorsFile file(path_);
    EXPECT_EQ(file.path(), path_);
    EXPECT_EQ(file.tensors().size(), 5U);
    EXPECT_TRUE(file.contains("f"));
    EXPECT_FALSE(file.contains("__metadata__"));
    EXPECT_EQ(file.floats("f"), (std::vector<float>{1.0F, -2.0F}));
    EXPECT_EQ(file.integers("i"), (std::vector<int64_t>{-1, 258}));
    EXPECT_EQ(file.at("i").shape, (std::vector<int64_t>{2, 1}));
    EXPECT_TRUE(file.integers("empty").empty());
    EXPECT_EQ(file.integers("scalar"), std::vector<int64_t>{7});
    EXPECT_EQ(file.at("odd").bytes, 2);
    const std::string where = path_.string();
    constexpr auto kInvalid = ErrorCode::kInvalidModel;
    expect_error([&] { file.at("nothing"); }, kInvalid, {where, "nothing"});
    expect_error([&] { file.floats("i"); }, kInvalid, {where, "i is I16, expected F32"});
    expect_error([&] { file.integers("f"); }, kInvalid, {where, "f is F32, expected I16"});
}

TEST_F(Safetensors, RefusesBadLengths) {
    expect_error([&] { SafetensorsFile{path_}; }, ErrorCode::kNotFound, {path_.string()});
    std::ofstream(path_).close();
    expect_refused({"0 bytes"});
    std::ofstream(path_) << "1234567";
    expect_refused({"7 bytes"});
    for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 32, uint64_t{1} << 63,
                                  std::numeric_limits<uint64_t>::max()}) {
        write_raw(length, "{}");
        expect_refused({"header of " + std::to_string(length) + " bytes", "at most 2"});
    }
    write_raw(200'000'000, "{}");
    std::filesystem::resize_file(path_, 300'000'000);  // sparse
    expect_refused({"header of 200000000 bytes", "at most 100000000"});
}

TEST_F(Safetensors, RefusesBadHeaders) {
    const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
        {"", {"header", "not valid JSON"}},
        {"[]", {"header is []", "object"}},
        {"{\"a\": 1", {"not valid JSON"}},
        {std::string(1000, '['), {"nested deeper"}},
        {"{\"a\": 5}", {"a is 5, expected an object"}},
        {R"({"a": {"shape": [1], "data_offsets": [0, 1]}})", {"a.dtype is absent"}},
        {R"({"a": {"dtype": 4, "shape": [1], "data_offsets": [0, 1]}})", {"a.dtype is 4"}},
        {R"({"a": {"dtype": "U8", "data_offsets": [0, 1]}})", {"a.shape is absent"}},
        {R"({"a": {"dtype": "U8", "shape": 1, "data_offsets": [0, 1]}})", {"a.shape is 1"}},
        {R"({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}})", {"a.shape is [-1]"}},
        {R"({"a": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}})", {"a.shape is [1.0]"}},
        {R"({"a": {"dtype": "U8", "shape": [18446744073709551615], "data_offsets": [0, 1]}})",
         {"a.shape"}},
        {R"({"a": {"dtype": "U8", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}})",
         {"a.shape is [4294967296,4294967296]", "2^63"}},
        {R"({"a": {"dtype": "F64", "shape": [2305843009213693952], "data_offsets": [0, 0]}})",
         {"a.data_offsets"}},
        {R"({"a": {"dtype": "U8", "shape": [1]}})", {"a.data_offsets is absent"}},
        {R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}})", {"a.data_offsets is [0]"}},
        {R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}})", {"a.data_offsets"}},
        {R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [-1, 0]}})", {"a.data_offsets"}},
        {R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [2, 1]}})",
         {"a.data_offsets is [2,1]", "16 bytes of data"}},
        {R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [16, 17]}})",
         {"a.data_offsets is [16,17]", "to 16"}},
        {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}})",
         {"a.data_offsets is [0,16]", "12 bytes, found 16", "[3] of F32"}},
        {R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
             "b": {"dtype": "U8", "shape": [4], "data_offsets": [3, 7]}})",
         {"a and b overlap"}},
        {R"({"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
             "b": {"dtype": "U8", "shape": [2], "data_offsets": [4, 6]}})",
         {"a and b overlap"}},
        {R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
             "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}})",
         {"duplicate key \"a\""}},
    };
    for (const auto& [header, parts] : cases) {
        SCOPED_TRACE(header.substr(0, 200));
        write(header, 16);
        expect_refused(parts);
    }
    write(R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})", 16);
    EXPECT_EQ(SafetensorsFile(path_).at("a").bytes, 4);
}

// Any byte of a header may be anything: an error or a file whose tensors can all be read.
TEST_F(Safetensors, SurvivesAnyByte) {
    write_safetensors(path_, {{"a", "F32", {2}, std::vector<uint8_t>(8)},
                              {"b", "I16", {3}, std::vector<uint8_t>(6)}});
    std::string good(std::filesystem::file_size(path_), '\0');
    std::ifstream(path_, std::ios::binary)
        .read(good.data(), static_cast<std::streamsize>(good.size()));
    int64_t opened = 0;
    int64_t sum = 0;
    for (size_t i = 0; i < good.size() - 14; ++i) {
        for (const char change : {'\x01', '\x10', '\x80', '\x7f'}) {
            std::string bad = good;
            bad[i] = static_cast<char>(bad[i] ^ change);
            std::ofstream(path_, std::ios::binary) << bad;
            try {
                const SafetensorsFile file(path_);
                ++opened;
                for (const auto& [name, t] : file.tensors())
                    for (int64_t b = 0; b < t.bytes; ++b)
                        sum += static_cast<const uint8_t*>(t.data)[b];
            } catch (const Error& e) {
                EXPECT_NE(std::string(e.what()).find(path_.string()), std::string::npos);
            }
        }
    }
    EXPECT_GT(opened, 0);
    EXPECT_EQ(sum, 0);
}

}  // namespace
}  // namespace dsa
