#pragma once
// The CUDA device, without CUDA's headers: memory, streams, kernels loaded from cubins, tensor
// maps. Built where CUDA is (DSA_CUDA); the runtime is linked statically, the driver is found at
// run time.
//
// Everything belongs to the current device of the calling thread. A failing call throws Error with
// CUDA's own text: kOutOfMemory, or kUnsupported. Objects are for one thread at a time unless said
// otherwise.

#include <cstdint>
#include <string>

namespace dsa::device {

struct Properties {
    std::string name;
    int major = 0, minor = 0;  // compute capability
    int multiprocessors = 0;
};
// Why there is no device to run on ("" if there is one). Any number of threads.
std::string why_unavailable();
Properties properties();

// Device memory.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(int64_t bytes);
    ~Buffer();
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    void* data() const { return data_; }
    int64_t size() const { return size_; }
    template <typename T>
    T* as() const {
        return static_cast<T*>(data_);
    }

  private:
    void* data_ = nullptr;
    int64_t size_ = 0;
};

// Work in order. A null handle is the default stream.
class Stream {
  public:
    Stream();
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    void* handle() const { return handle_; }
    void synchronize() const;

  private:
    void* handle_ = nullptr;
};

void copy_to_device(void* to, const void* from, int64_t bytes, void* stream);
void copy_to_host(void* to, const void* from, int64_t bytes, void* stream);  // waits
void copy_on_device(void* to, const void* from, int64_t bytes, void* stream);
void fill(void* p, int value, int64_t bytes, void* stream);

// A kernel of a loaded cubin.
struct Kernel {
    const void* handle = nullptr;
};
// A cubin; its kernels are valid as long as it is.
class Library {
  public:
    Library() = default;
    explicit Library(const void* cubin);
    ~Library();
    Library(Library&& other) noexcept;
    Library& operator=(Library&& other) noexcept;
    // Throws if there is no such kernel. shared_bytes: dynamic shared memory of a block.
    Kernel kernel(const char* name, int shared_bytes) const;

  private:
    void* handle_ = nullptr;
};

struct LaunchShape {
    int blocks = 1;
    int threads = 1;
    int cluster = 1;  // blocks
    int shared_bytes = 0;
    int blocks_y = 1;  // rows of blocks
};
void launch(Kernel kernel, const LaunchShape& shape, void** arguments, void* stream);
// Clusters of this shape that run at the same time on the whole device.
int max_active_clusters(Kernel kernel, const LaunchShape& shape);

// Opens a library of the CUDA toolkit, for example "libcublasLt.so", at run time: the file that
// environment variable `variable` names (throws kUnsupported if it cannot be opened), else the
// version that this was built with, where the loader finds it or under /usr/local/cuda. nullptr if
// there is none.
void* open_toolkit_library(const char* name, const char* variable);
// A symbol of such a library; nullptr if it has none of that name.
void* find_symbol(void* library, const char* name);
// Sets a pointer to a function of that name; false if there is none.
template <typename Function>
bool find_function(void* library, const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(find_symbol(library, name));
    return function != nullptr;
}

// How the copy engine sees a row-major matrix.
struct alignas(64) TensorMap {
    unsigned char bytes[128];
};
enum class BoxType { kByte, kBFloat16 };
struct BoxParams {
    const void* data = nullptr;  // 16-byte aligned
    BoxType type = BoxType::kByte;
    int64_t rows = 0, cols = 0;
    int64_t row_stride = 0;          // bytes, a multiple of 16
    int box_rows = 0, box_cols = 0;  // a row of a box is 128 bytes, written with their swizzle
    bool l2_fetches_two = false;     // 256 bytes of a row from memory at a time
};
TensorMap tensor_map(const BoxParams& p);

}  // namespace dsa::device
