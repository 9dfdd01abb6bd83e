#pragma once
// JSON of a model folder: parsing with limits on size and nesting, and fields with checked types
// and ranges. All errors are dsa::Error (kInvalidModel unless said) that name the file and the
// field, what was found and what was expected.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "dsa/error.h"

namespace dsa {

using Json = nlohmann::json;

inline constexpr int64_t kMaxJsonBytes = 100'000'000;  // the limit of a safetensors header
inline constexpr int kMaxJsonDepth = 32;
// Keys, values, lists and objects of one text: bounds the memory of the parsed form, where a value
// of two bytes of text takes up to a hundred. A header of 100,000 tensors has 1.5 million.
inline constexpr int64_t kMaxJsonValues = int64_t{1} << 21;

// `source` names the text in errors. Refuses duplicate keys.
Json parse_json(std::string_view text, const std::string& source);
// Also throws kNotFound.
Json read_json_file(const std::filesystem::path& path);

// A value for an error message: short, whatever it holds.
std::string describe(const Json& value);

// Typed access to an object's fields. A field that is null counts as absent. Refers to the object,
// does not own it.
class JsonFields {
  public:
    // prefix: how fields are named in errors, "rope_scaling." for a nested object.
    JsonFields(const Json& object, std::string file, std::string prefix = "");

    const Json* find(const char* key) const;  // nullptr where absent
    bool has(const char* key) const { return find(key) != nullptr; }

    // Without a fallback the field must be there. lo and hi are inclusive.
    int64_t integer(const char* key, int64_t lo, int64_t hi) const;
    int64_t integer_or(const char* key, int64_t fallback, int64_t lo, int64_t hi) const;
    double number(const char* key, double lo, double hi) const;
    double number_or(const char* key, double fallback, double lo, double hi) const;
    bool boolean_or(const char* key, bool fallback) const;
    std::string text_or(const char* key, const std::string& fallback) const;
    // An integer or a list of them; empty where absent.
    std::vector<int64_t> integers(const char* key, int64_t lo, int64_t hi) const;
    std::vector<std::string> texts(const char* key) const;
    JsonFields object(const char* key) const;

    // "FILE: KEY is FOUND, expected EXPECTED"
    [[noreturn]] void fail(ErrorCode code, const char* key, const std::string& expected) const;
    [[noreturn]] void fail(const char* key, const std::string& expected) const {
        fail(ErrorCode::kInvalidModel, key, expected);
    }

  private:
    const Json* object_;
    std::string file_;
    std::string prefix_;
};

}  // namespace dsa
