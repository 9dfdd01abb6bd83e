#pragma once
// config.json of the default generated checkpoint, edited by a test and read back.

#include <functional>
#include <nlohmann/json.hpp>

#include "engine/checkpoint.h"
#include "testing/checkpoint_builder.h"

namespace dsa::testing {

using Json = nlohmann::json;
using Edit = std::function<void(Json&)>;

inline ModelConfig read_edited(const Edit& edit, const Json& generation = nullptr) {
    const TempDir dir;
    Json config = make_config(CheckpointSpec{});
    edit(config);
    write_json(dir / "config.json", config);
    if (!generation.is_null()) write_json(dir / "generation_config.json", generation);
    return read_config(dir.path());
}

}  // namespace dsa::testing
