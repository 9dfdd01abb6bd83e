#pragma once
// Safetensors files, mapped. https://huggingface.co/docs/safetensors (format): 8 bytes header
// length, a JSON header, then the data. Every length, offset and shape is checked when the file is
// opened. Immutable; data pointers live as long as the file object.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace dsa {

struct Tensor {
    std::string dtype;  // as in the header: "F32", "BF16", "F8_E4M3", "I32", ...
    std::vector<int64_t> shape;
    const void* data = nullptr;  // little-endian, not necessarily aligned
    int64_t bytes = 0;
};

class SafetensorsFile {
  public:
    // Throws kNotFound or kInvalidModel, naming the file, the tensor, what was found and expected.
    explicit SafetensorsFile(const std::filesystem::path& path);
    ~SafetensorsFile();
    SafetensorsFile(SafetensorsFile&&) noexcept;
    SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

    const std::filesystem::path& path() const;
    const std::map<std::string, Tensor>& tensors() const;
    bool contains(const std::string& name) const;
    // Throws kInvalidModel if there is no such tensor.
    const Tensor& at(const std::string& name) const;
    // A copy as floats or integers. Throws kInvalidModel where the dtype is another one.
    std::vector<float> floats(const std::string& name) const;      // F32
    std::vector<int64_t> integers(const std::string& name) const;  // I16, I32 or I64

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace dsa
