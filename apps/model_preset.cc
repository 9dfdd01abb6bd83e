#include "model_preset.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cstdlib>
#include <fstream>

#include "common.h"
#include "dsa/error.h"

namespace dsa::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Beside an installed program, else where this one was built.
fs::path presets_folder() {
    std::error_code error;
    const fs::path program = fs::read_symlink("/proc/self/exe", error);
    fs::path installed = (program.parent_path() / "../share/dsa/configs/models").lexically_normal();
    if (fs::exists(installed, error)) return installed;
    return DSA_SOURCE_DIR "/configs/models";
}

std::string preset_names() {
    std::string names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(presets_folder(), error))
        if (entry.path().extension() == ".yaml")
            names += (names.empty() ? "" : ", ") + entry.path().stem().string();
    return names;
}

// A scalar that reads as a number or truth value is one.
Json scalar(const YAML::Node& node) {
    const std::string& text = node.Scalar();
    if (node.Tag() == "!") return text;  // quoted
    if (text == "true" || text == "false") return text == "true";
    const char* end = text.data() + text.size();
    int64_t integer = 0;
    if (const auto r = std::from_chars(text.data(), end, integer);
        r.ec == std::errc{} && r.ptr == end)
        return integer;
    double real = 0;
    if (const auto r = std::from_chars(text.data(), end, real); r.ec == std::errc{} && r.ptr == end)
        return real;
    return text;
}

Json to_json(const YAML::Node& node) {
    if (node.IsNull()) return nullptr;
    if (node.IsScalar()) return scalar(node);
    Json out = node.IsMap() ? Json::object() : Json::array();
    for (const auto& entry : node) {
        if (node.IsMap()) {
            out[entry.first.as<std::string>()] = to_json(entry.second);
        } else {
            out.push_back(to_json(entry));
        }
    }
    return out;
}

}  // namespace

Json read_preset(const std::string& preset) {
    fs::path file = preset;
    if (file.extension() != ".yaml") file = presets_folder() / (preset + ".yaml");
    if (!fs::exists(file))
        throw_error(ErrorCode::kNotFound, preset,
                    ": no such checkpoint folder or preset; presets: ", preset_names());
    try {
        Json config = to_json(YAML::LoadFile(file.string()));
        if (!config.is_object())
            throw_error(ErrorCode::kInvalidArgument, file.string(), ": expected keys and values");
        return config;
    } catch (const YAML::Exception& error) {
        throw_error(ErrorCode::kInvalidArgument, file.string(), ": ", error.what());
    }
}

SyntheticCheckpoint::SyntheticCheckpoint(const std::string& preset) {
    const Json config = read_preset(preset);
    std::string name = (fs::temp_directory_path() / "dsa-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
        throw_error(ErrorCode::kNotFound, name, ": no temporary folder can be made there");
    path_ = name;
    try {
        write_synthetic_checkpoint(config, path_, 1);
    } catch (...) {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
        throw;
    }
}

SyntheticCheckpoint::~SyntheticCheckpoint() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

}  // namespace dsa::app
