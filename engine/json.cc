#include "engine/json.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/mapped_file.h"

namespace dsa {

namespace {

constexpr size_t kMaxShown = 80;     // characters of a found value in a message
constexpr size_t kMaxElements = 16;  // of a list or object that is shown in full

std::string shorten(std::string s, size_t limit) {
    if (s.size() > limit) s = s.substr(0, limit) + "...";
    return s;
}

std::string range_string(int64_t lo, int64_t hi) {
    return "an integer from " + std::to_string(lo) + " to " + std::to_string(hi);
}

std::string range_string(double lo, double hi) {
    std::ostringstream s;
    s << "a number from " << lo << " to " << hi;
    return s.str();
}

bool integer_in_range(const Json& value, int64_t lo, int64_t hi) {
    if (!value.is_number_integer()) return false;
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        return false;
    const auto v = value.get<int64_t>();
    return v >= lo && v <= hi;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& source) {
    if (text.find('\0') != std::string_view::npos)  // the parser takes it for the end
        throw_error(ErrorCode::kInvalidModel, source, ": not valid JSON: it holds a zero byte");
    std::vector<std::set<std::string>> keys;  // of the objects that are open
    int64_t values = 0;
    const auto check = [&](int depth, Json::parse_event_t event, const Json& parsed) {
        using Event = Json::parse_event_t;
        if (++values > kMaxJsonValues)
            throw_error(ErrorCode::kInvalidModel, source, ": JSON of more than ", kMaxJsonValues,
                        " keys and values");
        if (event == Event::object_start || event == Event::array_start) {
            if (depth >= kMaxJsonDepth)
                throw_error(ErrorCode::kInvalidModel, source, ": JSON nested deeper than ",
                            kMaxJsonDepth, " levels");
            if (event == Event::object_start) keys.emplace_back();
        } else if (event == Event::object_end) {
            keys.pop_back();
        } else if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
            throw_error(ErrorCode::kInvalidModel, source, ": duplicate key ", describe(parsed));
        }
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), check);
    } catch (const Json::exception& e) {
        throw_error(ErrorCode::kInvalidModel, source, ": not valid JSON: ", shorten(e.what(), 200));
    }
}

Json read_json_file(const std::filesystem::path& path) {
    const MappedFile file(path);
    const auto bytes = file.bytes();
    if (bytes.size() > static_cast<size_t>(kMaxJsonBytes))
        throw_error(ErrorCode::kInvalidModel, path.string(), ": ", bytes.size(),
                    " bytes, expected at most ", kMaxJsonBytes);
    return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

std::string describe(const Json& value) {
    if (value.is_object())
        return value.size() > kMaxElements ? "an object of " + std::to_string(value.size())
                                           : "an object";
    if (value.is_string() && value.get_ref<const std::string&>().size() > kMaxShown)
        return describe(Json(value.get_ref<const std::string&>().substr(0, kMaxShown)));
    // What a list holds is shown where that is short too.
    if (value.is_array() && (value.size() > kMaxElements ||
                             std::any_of(value.begin(), value.end(), [](const Json& element) {
                                 return element.is_structured() ||
                                        (element.is_string() &&
                                         element.get_ref<const std::string&>().size() > kMaxShown);
                             })))
        return "a list of " + std::to_string(value.size());
    return shorten(value.dump(-1, ' ', true, Json::error_handler_t::replace), kMaxShown);
}

JsonFields::JsonFields(const Json& object, std::string file, std::string prefix)
    : object_(&object), file_(std::move(file)), prefix_(std::move(prefix)) {
    if (!object.is_object())
        throw_error(ErrorCode::kInvalidModel, file_, ": ",
                    prefix_.empty() ? "content" : prefix_.substr(0, prefix_.size() - 1), " is ",
                    describe(object), ", expected an object");
}

const Json* JsonFields::find(const char* key) const {
    const auto it = object_->find(key);
    return it == object_->end() || it->is_null() ? nullptr : &*it;
}

int64_t JsonFields::integer(const char* key, int64_t lo, int64_t hi) const {
    const Json* value = find(key);
    if (value == nullptr || !integer_in_range(*value, lo, hi)) fail(key, range_string(lo, hi));
    return value->get<int64_t>();
}

int64_t JsonFields::integer_or(const char* key, int64_t fallback, int64_t lo, int64_t hi) const {
    return has(key) ? integer(key, lo, hi) : fallback;
}

double JsonFields::number(const char* key, double lo, double hi) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is_number()) fail(key, range_string(lo, hi));
    const auto v = value->get<double>();
    if (!(v >= lo && v <= hi)) fail(key, range_string(lo, hi));
    return v;
}

double JsonFields::number_or(const char* key, double fallback, double lo, double hi) const {
    return has(key) ? number(key, lo, hi) : fallback;
}

bool JsonFields::boolean_or(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, "true or false");
    return value->get<bool>();
}

std::string JsonFields::text_or(const char* key, const std::string& fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) fail(key, "a string");
    return value->get<std::string>();
}

std::vector<int64_t> JsonFields::integers(const char* key, int64_t lo, int64_t hi) const {
    const Json* value = find(key);
    std::vector<int64_t> result;
    if (value == nullptr) return result;
    const Json list = value->is_array() ? *value : Json::array({*value});
    for (const Json& element : list) {
        if (!integer_in_range(element, lo, hi))
            fail(key, range_string(lo, hi) + " or a list of them");
        result.push_back(element.get<int64_t>());
    }
    return result;
}

std::vector<std::string> JsonFields::texts(const char* key) const {
    const Json* value = find(key);
    std::vector<std::string> result;
    if (value == nullptr) return result;
    if (!value->is_array()) fail(key, "a list of strings");
    for (const Json& element : *value) {
        if (!element.is_string()) fail(key, "a list of strings");
        result.push_back(element.get<std::string>());
    }
    return result;
}

JsonFields JsonFields::object(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) fail(key, "an object");
    return {*value, file_, prefix_ + key + "."};
}

void JsonFields::fail(ErrorCode code, const char* key, const std::string& expected) const {
    const Json* value = find(key);
    throw_error(code, file_, ": ", prefix_, key, " is ", value ? describe(*value) : "absent",
                ", expected ", expected);
}

}  // namespace dsa
