#pragma once
// A whole file mapped read-only. Owns the mapping; views into it live as long as it does. A file
// that shrinks while it is mapped ends in SIGBUS at the next read of the lost pages, as with every
// mapping: models are replaced by a rename, not rewritten in place.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace dsa {

// Whether a folder has an entry of this name. True for a link that leads nowhere: a file that is
// broken is not one that is absent, and opening it says what is wrong.
bool has_entry(const std::filesystem::path& path);

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
