#pragma once
// Tokenizer files for tests: the built-in model's, and others written field by field
// (SentencePiece's ModelProto).

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "dsa/tokenizer.h"

namespace dsa::testing {

namespace fs = std::filesystem;

inline constexpr int64_t kVocabSize = 8192;
inline const fs::path kModel = fs::path(DSA_MODELS) / "dsa-mini";
inline const fs::path kGolden = fs::path(DSA_TEST_DATA) / "golden" / "dsa-mini";

inline std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file.good()) << path;
    return {std::istreambuf_iterator<char>(file), {}};
}

inline const std::string& real_model() {
    static const std::string bytes = read_file(kModel / "tokenizer.model");
    return bytes;
}

// A model folder that holds only a tokenizer.model.
class ModelFolder {
  public:
    explicit ModelFolder(const std::string& model) {
        fs::create_directories(path_);
        std::ofstream(path_ / "tokenizer.model", std::ios::binary) << model;
    }
    ~ModelFolder() { fs::remove_all(path_); }
    ModelFolder(const ModelFolder&) = delete;
    ModelFolder& operator=(const ModelFolder&) = delete;
    const fs::path& path() const { return path_; }

  private:
    fs::path path_ = fs::path(::testing::TempDir()) / ("dsa_tokenizer_" + std::to_string(getpid()));
};

inline std::unique_ptr<const Tokenizer> open_bytes(const std::string& model,
                                                   int64_t vocab_size = kVocabSize) {
    return open_tokenizer(ModelFolder(model).path(), vocab_size);
}

inline const Tokenizer& mini() {
    static const std::unique_ptr<const Tokenizer> tokenizer = open_tokenizer(kModel, kVocabSize);
    return *tokenizer;
}

inline std::string varint(uint64_t value) {
    std::string out;
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
    return out + static_cast<char>(value);
}
inline std::string number_field(uint64_t field, uint64_t value) {
    return varint(field << 3) + varint(value);
}
inline std::string bytes_field(uint64_t field, const std::string& bytes) {
    return varint(field << 3 | 2) + varint(bytes.size()) + bytes;
}
inline std::string float_field(uint64_t field, uint32_t bits) {
    std::string out = varint(field << 3 | 5);
    for (int i = 0; i < 4; ++i) out += static_cast<char>(bits >> (8 * i));
    return out;
}
inline std::string piece_field(const std::string& text, uint64_t type, uint32_t score_bits = 0) {
    return bytes_field(1,
                       bytes_field(1, text) + float_field(2, score_bits) + number_field(3, type));
}

inline constexpr uint64_t kNormal = 1;
inline constexpr uint64_t kUnknown = 2;
inline constexpr uint64_t kControl = 3;
inline constexpr uint64_t kUserDefined = 4;
inline constexpr uint64_t kBpe = 2;

// Merged into whatever the model says before.
inline std::string trainer(uint64_t model_type, bool byte_fallback) {
    return bytes_field(2, number_field(3, model_type) + number_field(35, byte_fallback));
}
inline std::string normalizer(bool add_dummy_prefix) {
    return bytes_field(3, number_field(3, add_dummy_prefix) + number_field(4, 0));
}

inline const std::string kUser = "<\uff5cUser\uff5c>";

}  // namespace dsa::testing
