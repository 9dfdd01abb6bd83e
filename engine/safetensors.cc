#include "dsa/safetensors.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/mapped_file.h"
#include "base/tensor_view.h"
#include "engine/json.h"

namespace dsa {

struct SafetensorsFile::State {
    MappedFile file;
    std::map<std::string, Tensor> tensors;
};

namespace {

constexpr size_t kLengthBytes = 8;

// Bytes of one element; 0 for a dtype that this build does not know, whose size is not verified.
int64_t element_size(const std::string& dtype) {
    static constexpr std::pair<std::string_view, int64_t> kSizes[] = {
        {"F64", 8},     {"I64", 8},     {"U64", 8},  {"F32", 4},    {"I32", 4}, {"U32", 4},
        {"F16", 2},     {"I16", 2},     {"U16", 2},  {"I8", 1},     {"U8", 1},  {"BF16", 2},
        {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}, {"F8_E8M0", 1}};
    for (const auto& [name, size] : kSizes)
        if (name == dtype) return size;
    return 0;
}

uint64_t read_length(std::span<const uint8_t> bytes) {
    uint64_t n = 0;
    for (size_t i = 0; i < kLengthBytes; ++i) n |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    return n;
}

std::string_view header_text(std::span<const uint8_t> bytes, const std::string& source) {
    if (bytes.size() < kLengthBytes)
        throw_error(ErrorCode::kInvalidModel, source, ": ", bytes.size(),
                    " bytes, expected a safetensors file (at least 8 bytes)");
    const uint64_t length = read_length(bytes);
    const uint64_t limit =
        std::min<uint64_t>(bytes.size() - kLengthBytes, static_cast<uint64_t>(kMaxJsonBytes));
    if (length > limit)
        throw_error(ErrorCode::kInvalidModel, source, ": header of ", length,
                    " bytes, expected at most ", limit, " (file of ", bytes.size(), " bytes)");
    return {reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
            static_cast<size_t>(length)};
}

// Elements of a shape, -1 where that is beyond int64.
int64_t checked_numel(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (const int64_t d : shape)
        if (__builtin_mul_overflow(n, d, &n)) return -1;
    return n;
}

Tensor read_tensor(const JsonFields& entry, std::span<const uint8_t> data) {
    Tensor t;
    t.dtype = entry.text_or("dtype", "");
    if (t.dtype.empty()) entry.fail("dtype", "the name of a type");
    for (const char* key : {"shape", "data_offsets"})
        if (!entry.has(key) || !entry.find(key)->is_array()) entry.fail(key, "a list of integers");
    t.shape = entry.integers("shape", 0, INT64_MAX);
    const int64_t numel = checked_numel(t.shape);
    if (numel < 0) entry.fail("shape", "fewer than 2^63 elements");
    const auto data_size = static_cast<int64_t>(data.size());
    const std::vector<int64_t> offsets = entry.integers("data_offsets", 0, data_size);
    if (offsets.size() != 2 || offsets[0] > offsets[1])
        entry.fail("data_offsets",
                   "begin and end within " + std::to_string(data_size) + " bytes of data");
    t.bytes = offsets[1] - offsets[0];
    const int64_t size = element_size(t.dtype);
    int64_t expected = 0;
    if (size > 0 && (__builtin_mul_overflow(numel, size, &expected) || expected != t.bytes))
        entry.fail("data_offsets", std::to_string(expected) + " bytes, found " +
                                       std::to_string(t.bytes) + " (shape " +
                                       shape_string(t.shape) + " of " + t.dtype + ")");
    t.data = data.data() + offsets[0];
    return t;
}

void check_overlap(const std::map<std::string, Tensor>& tensors, const std::string& source) {
    using Item = std::pair<const std::string, Tensor>;
    std::vector<const Item*> order;
    for (const Item& item : tensors)
        if (item.second.bytes > 0) order.push_back(&item);
    const auto begin = [](const Item* i) { return static_cast<const uint8_t*>(i->second.data); };
    std::sort(order.begin(), order.end(),
              [&](const Item* a, const Item* b) { return begin(a) < begin(b); });
    for (size_t i = 1; i < order.size(); ++i)
        if (begin(order[i]) < begin(order[i - 1]) + order[i - 1]->second.bytes)
            throw_error(ErrorCode::kInvalidModel, source, ": the data of tensors ",
                        order[i - 1]->first, " and ", order[i]->first,
                        " overlap, expected them apart");
}

std::map<std::string, Tensor> read_tensors(std::span<const uint8_t> bytes,
                                           const std::string& source) {
    const std::string_view text = header_text(bytes, source);
    const Json header = parse_json(text, source + " (header)");
    if (!header.is_object())
        throw_error(ErrorCode::kInvalidModel, source, ": header is ", describe(header),
                    ", expected an object");
    const auto data = bytes.subspan(kLengthBytes + text.size());
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, entry] : header.items()) {
        if (name == "__metadata__") continue;
        tensors.emplace(name, read_tensor(JsonFields(entry, source, name + "."), data));
    }
    check_overlap(tensors, source);
    return tensors;
}

template <typename From, typename To>
std::vector<To> convert(const Tensor& tensor) {
    const auto n = static_cast<size_t>(tensor.bytes) / sizeof(From);
    std::vector<To> result(n);
    for (size_t i = 0; i < n; ++i) {
        From value;
        std::memcpy(&value, static_cast<const uint8_t*>(tensor.data) + i * sizeof(From),
                    sizeof(From));
        result[i] = static_cast<To>(value);
    }
    return result;
}

[[noreturn]] void wrong_dtype(const SafetensorsFile& file, const std::string& name,
                              const char* expected) {
    throw_error(ErrorCode::kInvalidModel, file.path().string(), ": tensor ", name, " is ",
                file.at(name).dtype, ", expected ", expected);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : state_(std::make_unique<State>()) {
    state_->file = MappedFile(path);
    state_->tensors = read_tensors(state_->file.bytes(), path.string());
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::filesystem::path& SafetensorsFile::path() const {
    return state_->file.path();
}

const std::map<std::string, Tensor>& SafetensorsFile::tensors() const {
    return state_->tensors;
}

bool SafetensorsFile::contains(const std::string& name) const {
    return state_->tensors.count(name) != 0;
}

const Tensor& SafetensorsFile::at(const std::string& name) const {
    const auto it = state_->tensors.find(name);
    if (it == state_->tensors.end())
        throw_error(ErrorCode::kInvalidModel, path().string(), ": no tensor ", name);
    return it->second;
}

std::vector<float> SafetensorsFile::floats(const std::string& name) const {
    const Tensor& t = at(name);
    if (t.dtype != "F32") wrong_dtype(*this, name, "F32");
    return convert<float, float>(t);
}

std::vector<int64_t> SafetensorsFile::integers(const std::string& name) const {
    const Tensor& t = at(name);
    if (t.dtype == "I16") return convert<int16_t, int64_t>(t);
    if (t.dtype == "I32") return convert<int32_t, int64_t>(t);
    if (t.dtype == "I64") return convert<int64_t, int64_t>(t);
    wrong_dtype(*this, name, "I16, I32 or I64");
}

}  // namespace dsa
