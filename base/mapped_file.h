#pragma once
// A whole file mapped read-only. Owns the mapping; views into it live as long as it does.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace dsa {

class MappedFile {
  public:
    MappedFile() = default;
    // Throws kNotFound (no such file, not a regular file) or kInvalidModel (cannot be mapped).
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;

    std::span<const uint8_t> bytes() const { return {data_, size_}; }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace dsa
