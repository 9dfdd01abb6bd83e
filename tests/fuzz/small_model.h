#pragma once
// A valid model of half a megabyte with all its files, to be damaged; and what is done with the
// damaged one: open it, and if that works, use it.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "dsa/error.h"
#include "testing/checkpoint_builder.h"

namespace dsa::testing {

using Files = std::map<std::string, std::string>;  // name to content

inline constexpr const char* kConfig = "config.json";
inline constexpr const char* kGeneration = "generation_config.json";
inline constexpr const char* kTokenizer = "tokenizer.model";
inline constexpr const char* kIndex = "model.safetensors.index.json";
inline constexpr const char* kFirstShard = "model-00001-of-00002.safetensors";
inline constexpr const char* kLastShard = "model-00002-of-00002.safetensors";

// No two of its sizes are equal. One dense layer and one of experts.
CheckpointSpec small_spec();
nlohmann::json small_generation_config();
// BPE with byte pieces, 280 pieces.
std::string small_tokenizer();
// shards 1: model.safetensors, no index.
Files small_model(int shards = 2);

std::string read_whole(const std::filesystem::path& path);
void write_whole(const std::filesystem::path& path, const std::string& content);
// Whatever lies there before is removed.
void write_files(const std::filesystem::path& folder, const Files& files);

// The length in front of a safetensors file's header.
uint64_t get_length(const std::string& file);
void set_length(std::string& file, uint64_t length);
// A file of a header as text, whose length is put in front.
std::string with_length(const std::string& header, const std::string& data);
struct Parts {
    std::string header;
    std::string data;
};
Parts take_apart(const std::string& file);

struct Outcome {
    bool opened = false;
    ErrorCode code = ErrorCode::kInternal;
    std::string message;
};

// Opens the folder, and if that works takes tokens in, generates, tokenises. Throws only what is
// not a dsa::Error.
Outcome open_and_use(const std::filesystem::path& folder);

// What is wrong with an error's message: it names neither a file of the folder nor a memory plan,
// is too long or not fit for a terminal. nullopt: nothing.
std::optional<std::string> complaint(const Outcome& outcome, const std::filesystem::path& folder);

// From now on the program may take `seconds`, or it ends with a message that has `what` in it; 0:
// for ever. `what` must live on.
void set_deadline(unsigned seconds, const char* what);

}  // namespace dsa::testing
