#include "engine/checkpoint.h"

#include <map>
#include <string>
#include <utility>

#include "base/mapped_file.h"
#include "base/printable.h"
#include "engine/checkpoint_binder.h"
#include "engine/json.h"

namespace dsa {

namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
constexpr size_t kMaxNotInIndexWarnings = 20;
constexpr size_t kMaxFileName = 255;  // of Linux file systems

using WeightMap = std::map<std::string, std::string>;  // tensor to shard

// A shard lies in the model's own folder, whatever the index says.
bool is_plain_file_name(const std::string& name) {
    return !name.empty() && name.size() <= kMaxFileName && name.find('/') == std::string::npos &&
           name.find('\0') == std::string::npos && name.find("..") == std::string::npos &&
           name != ".";
}

WeightMap read_index(const fs::path& path) {
    const Json json = read_json_file(path);
    const JsonFields index(json, path.string());
    if (!index.has("weight_map")) index.fail("weight_map", "an object of tensors and their files");
    const Json& weight_map = *index.find("weight_map");
    if (!weight_map.is_object()) index.fail("weight_map", "an object of tensors and their files");
    WeightMap result;
    for (const auto& [tensor, shard] : weight_map.items()) {
        if (!shard.is_string() || !is_plain_file_name(shard.get<std::string>()))
            throw_error(ErrorCode::kInvalidModel, path.string(), ": weight_map.", tensor, " is ",
                        describe(shard), ", expected the name of a file in the same folder");
        result.emplace(tensor, shard.get<std::string>());
    }
    if (result.empty()) index.fail("weight_map", "at least one tensor");
    return result;
}

SafetensorsFile open_shard(const fs::path& model, const std::string& name) {
    const fs::path path = model / name;
    if (!has_entry(path))
        throw_error(ErrorCode::kNotFound, path.string(), ": no such file, ", kIndexName,
                    " expects it");
    return SafetensorsFile(path);
}

// Tensors that lie in a shard without the index naming them there are warnings, not part of the
// model.
void warn_not_in_index(const SafetensorsFile& file, const std::string& shard, const WeightMap& map,
                       std::vector<std::string>& warnings) {
    const std::string shown_shard = printable(shard);
    size_t count = 0;
    for (const auto& [name, tensor] : file.tensors()) {
        const auto it = map.find(name);
        if (it != map.end() && it->second == shard) continue;
        if (++count <= kMaxNotInIndexWarnings)
            warnings.push_back(
                "tensor " + printable(name) + " of " + shown_shard + " is not used: " + kIndexName +
                (it == map.end() ? " does not list it" : " has it in " + printable(it->second)));
    }
    if (count > kMaxNotInIndexWarnings)
        warnings.push_back("and " + std::to_string(count - kMaxNotInIndexWarnings) +
                           " more tensors of " + shown_shard + " that are not in the index");
}

// Opens all files of a model; each tensor comes from the file that the index names.
TensorTable open_files(const fs::path& model, std::vector<SafetensorsFile>& files,
                       std::vector<std::string>& warnings) {
    TensorTable table;
    const fs::path index_path = model / kIndexName;
    if (!has_entry(index_path)) {
        const fs::path single = model / kSingleName;
        if (!has_entry(single))
            throw_error(ErrorCode::kNotFound, model.string(), ": no weights, expected ", kIndexName,
                        " or ", kSingleName);
        files.emplace_back(single);
        for (const auto& [name, tensor] : files[0].tensors())
            table[name] = {&tensor, &files[0].path()};
        return table;
    }
    const WeightMap map = read_index(index_path);
    std::map<std::string, size_t> shards;  // file name to its place in files
    for (const auto& [name, shard] : map) {
        if (shards.emplace(shard, files.size()).second) {
            files.push_back(open_shard(model, shard));
            warn_not_in_index(files.back(), shard, map, warnings);
        }
        const SafetensorsFile& file = files[shards.at(shard)];
        if (!file.contains(name))
            throw_error(ErrorCode::kInvalidModel, file.path().string(), ": tensor ", name,
                        " is missing, expected there by ", kIndexName);
        table[name] = {&file.at(name), &file.path()};
    }
    return table;
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& model) {
    info_.path = model.string();
    info_.config = read_config(model);
    info_.has_tokenizer = has_entry(model / "tokenizer.model");
    TensorTable table = open_files(model, files_, info_.warnings);
    CheckpointBinder(*this, table).bind();
}

void Checkpoint::load_weights() const {
    constexpr size_t kPage = 4096;  // the smallest there is
    for (const std::span<const uint8_t> tensor : bound_) {
        const volatile uint8_t* bytes = tensor.data();
        for (size_t i = 0; i < tensor.size(); i += kPage) static_cast<void>(bytes[i]);
        if (!tensor.empty()) static_cast<void>(bytes[tensor.size() - 1]);
    }
}

}  // namespace dsa
