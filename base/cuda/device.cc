#include "base/device.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "dsa/error.h"

namespace dsa::device {
namespace {

void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // the next call starts clean, if it can
    const ErrorCode code =
        status == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kUnsupported;
    throw_error(code, "CUDA: ", what, ": ", cudaGetErrorString(status), " (",
                cudaGetErrorName(status), ")");
}

cudaStream_t stream_of(void* handle) {
    return static_cast<cudaStream_t>(handle);
}

cudaLaunchConfig_t launch_config(const LaunchShape& shape, void* stream,
                                 cudaLaunchAttribute* attribute) {
    cudaLaunchConfig_t config{};
    config.gridDim =
        dim3(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.blocks_y));
    config.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
    config.stream = stream_of(stream);
    attribute->id = cudaLaunchAttributeClusterDimension;
    attribute->val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    attribute->val.clusterDim.y = 1;
    attribute->val.clusterDim.z = 1;
    config.attrs = attribute;
    config.numAttrs = 1;
    return config;
}

// The driver's function that fills tensor maps; the driver is not linked.
PFN_cuTensorMapEncodeTiled_v12000 encode_function() {
    static const PFN_cuTensorMapEncodeTiled_v12000 function = [] {
        void* p = nullptr;
        cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
        check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000,
                                               cudaEnableDefault, &found),
              "cuTensorMapEncodeTiled");
        if (found != cudaDriverEntryPointSuccess)
            throw_error(ErrorCode::kUnsupported, "CUDA: the driver has no cuTensorMapEncodeTiled");
        return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(p);
    }();
    return function;
}
}  // namespace

std::string why_unavailable() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
        cudaGetLastError();
        return std::string("CUDA: ") + cudaGetErrorString(status);
    }
    if (count == 0) return "CUDA: no device";
    const Properties p = properties();
    if (p.major != 9)
        return p.name + " has compute capability " + std::to_string(p.major) + "." +
               std::to_string(p.minor) + ", expected 9.0 (Hopper)";
    return "";
}

Properties properties() {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties");
    return {p.name, p.major, p.minor, p.multiProcessorCount};
}

Buffer::Buffer(int64_t bytes) : size_(bytes) {
    if (bytes > 0) check(cudaMalloc(&data_, static_cast<size_t>(bytes)), "cudaMalloc");
}
Buffer::~Buffer() {
    if (data_ != nullptr) cudaFree(data_);
}
Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
Buffer& Buffer::operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

Stream::Stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    handle_ = stream;
}
Stream::~Stream() {
    cudaStreamDestroy(stream_of(handle_));
}
void Stream::synchronize() const {
    check(cudaStreamSynchronize(stream_of(handle_)), "cudaStreamSynchronize");
}

void copy_to_device(void* to, const void* from, int64_t bytes, void* stream) {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                          stream_of(stream)),
          "cudaMemcpyAsync to the device");
}
void copy_to_host(void* to, const void* from, int64_t bytes, void* stream) {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost,
                          stream_of(stream)),
          "cudaMemcpyAsync to the host");
    check(cudaStreamSynchronize(stream_of(stream)), "cudaStreamSynchronize");
}
void copy_on_device(void* to, const void* from, int64_t bytes, void* stream) {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                          stream_of(stream)),
          "cudaMemcpyAsync on the device");
}
void fill(void* p, int value, int64_t bytes, void* stream) {
    check(cudaMemsetAsync(p, value, static_cast<size_t>(bytes), stream_of(stream)),
          "cudaMemsetAsync");
}

Library::Library(const void* cubin) {
    cudaLibrary_t library = nullptr;
    check(cudaLibraryLoadData(&library, cubin, nullptr, nullptr, 0, nullptr, nullptr, 0),
          "cudaLibraryLoadData");
    handle_ = library;
}
Library::~Library() {
    if (handle_ != nullptr) cudaLibraryUnload(static_cast<cudaLibrary_t>(handle_));
}
Library::Library(Library&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
Library& Library::operator=(Library&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
}
Kernel Library::kernel(const char* name, int shared_bytes) const {
    cudaKernel_t kernel = nullptr;
    check(cudaLibraryGetKernel(&kernel, static_cast<cudaLibrary_t>(handle_), name), name);
    if (shared_bytes > 0)
        check(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
            name);
    return {kernel};
}

void launch(Kernel kernel, const LaunchShape& shape, void** arguments, void* stream) {
    cudaLaunchAttribute attribute{};
    const cudaLaunchConfig_t config = launch_config(shape, stream, &attribute);
    check(cudaLaunchKernelExC(&config, kernel.handle, arguments), "cudaLaunchKernelEx");
}

int max_active_clusters(Kernel kernel, const LaunchShape& shape) {
    cudaLaunchAttribute attribute{};
    const cudaLaunchConfig_t config = launch_config(shape, nullptr, &attribute);
    int clusters = 0;
    check(cudaOccupancyMaxActiveClusters(&clusters, kernel.handle, &config),
          "cudaOccupancyMaxActiveClusters");
    return clusters;
}

void* open_toolkit_library(const char* name, const char* variable) {
    if (const char* path = std::getenv(variable); path != nullptr && *path != '\0') {
        if (void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL)) return library;
        throw_error(ErrorCode::kUnsupported, variable, ": expected CUDA's ", name, ", found '",
                    path, "' (", dlerror(), ")");
    }
    const std::string versioned = std::string(name) + "." + std::to_string(CUDART_VERSION / 1000);
    for (const char* folder : {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/extras/CUPTI/lib64/"})
        if (void* library = dlopen((folder + versioned).c_str(), RTLD_NOW | RTLD_LOCAL))
            return library;
    return nullptr;
}

void* find_symbol(void* library, const char* name) {
    return dlsym(library, name);
}

TensorMap tensor_map(const BoxParams& p) {
    CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_UINT8;
    if (p.type == BoxType::kBFloat16) type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const cuuint64_t size[2] = {static_cast<cuuint64_t>(p.cols), static_cast<cuuint64_t>(p.rows)};
    const cuuint64_t stride[1] = {static_cast<cuuint64_t>(p.row_stride)};
    const cuuint32_t box[2] = {static_cast<cuuint32_t>(p.box_cols),
                               static_cast<cuuint32_t>(p.box_rows)};
    const cuuint32_t step[2] = {1, 1};
    CUtensorMap map;
    const CUresult status = encode_function()(
        &map, type, 2, const_cast<void*>(p.data), size, stride, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        p.l2_fetches_two ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        throw_error(ErrorCode::kInvalidArgument, "CUDA: no tensor map of ", p.rows, " x ", p.cols,
                    " with rows of ", p.row_stride, " bytes, boxes of ", p.box_rows, " x ",
                    p.box_cols, " (error ", static_cast<int>(status), ")");
    static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));
    TensorMap result;
    std::memcpy(&result, &map, sizeof map);
    return result;
}

}  // namespace dsa::device
