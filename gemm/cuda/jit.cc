#include "gemm/cuda/jit.h"

#if __has_include(<nvrtc.h>)
#include <nvrtc.h>
#define DSA_HAS_NVRTC 1
#endif
#include <elf.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "base/device.h"
#include "dsa/error.h"
#include "gemm/cuda/kernel_source.h"

namespace dsa::gemm::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArchitecture = "sm_90a";

// The initialisers of a KernelConfig.
std::string initialisers(const KernelConfig& c) {
    const char* groups = c.groups == Groups::kDense        ? "kDense"
                         : c.groups == Groups::kContiguous ? "kContiguous"
                                                           : "kMasked";
    std::string text = std::string("Groups::") + groups + (c.swapped ? ",true" : ",false");
    for (const int value : {c.tile_m, c.tile_n, c.split_k, c.math_groups})
        text += "," + std::to_string(value);
    return text + (c.f32_out ? ",true" : ",false") + (c.direct ? ",true" : ",false");
}

// As large as its ELF header says.
bool is_cubin(const std::vector<unsigned char>& bytes) {
    Elf64_Ehdr header;
    if (bytes.size() < sizeof header) return false;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
    const auto end = [](uint64_t offset, uint64_t size, uint64_t count) {
        return offset + size * count;
    };
    return end(header.e_shoff, header.e_shentsize, header.e_shnum) <= bytes.size() &&
           end(header.e_phoff, header.e_phentsize, header.e_phnum) <= bytes.size();
}

std::vector<unsigned char> read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Whole or not at all: another process may read it at any time.
void keep(const std::vector<unsigned char>& bytes, const fs::path& path) {
    static std::atomic<int> count{0};
    std::error_code failed;
    fs::create_directories(path.parent_path(), failed);
    const fs::path unfinished =
        path.string() + "." + std::to_string(::getpid()) + "." + std::to_string(count++);
    std::ofstream file(unfinished, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (file) fs::rename(unfinished, path, failed);
    if (!file || failed) fs::remove(unfinished, failed);
}

#ifdef DSA_HAS_NVRTC

struct Nvrtc {
    void* library = nullptr;
    decltype(&nvrtcVersion) version = nullptr;
    decltype(&nvrtcGetErrorString) error_string = nullptr;
    decltype(&nvrtcCreateProgram) create = nullptr;
    decltype(&nvrtcDestroyProgram) destroy = nullptr;
    decltype(&nvrtcCompileProgram) compile = nullptr;
    decltype(&nvrtcGetProgramLogSize) log_size = nullptr;
    decltype(&nvrtcGetProgramLog) log = nullptr;
    decltype(&nvrtcGetCUBINSize) cubin_size = nullptr;
    decltype(&nvrtcGetCUBIN) cubin = nullptr;
    bool complete = false;
};

const Nvrtc& nvrtc() {
    static const Nvrtc loaded = [] {
        Nvrtc n;
        n.library = device::open_toolkit_library("libnvrtc.so", "DSA_NVRTC");
        if (n.library == nullptr) return n;
        const auto find = [&](auto& function, const char* name) {
            return device::find_function(n.library, name, function);
        };
        n.complete =
            find(n.version, "nvrtcVersion") && find(n.error_string, "nvrtcGetErrorString") &&
            find(n.create, "nvrtcCreateProgram") && find(n.destroy, "nvrtcDestroyProgram") &&
            find(n.compile, "nvrtcCompileProgram") && find(n.log_size, "nvrtcGetProgramLogSize") &&
            find(n.log, "nvrtcGetProgramLog") && find(n.cubin_size, "nvrtcGetCUBINSize") &&
            find(n.cubin, "nvrtcGetCUBIN");
        return n;
    }();
    return loaded;
}

std::string compiler_version() {
    int major = 0, minor = 0;
    nvrtc().version(&major, &minor);
    return std::to_string(major) + "." + std::to_string(minor);
}

std::vector<unsigned char> compile(const KernelConfig& c) {
    const Nvrtc& n = nvrtc();
    nvrtcProgram program = nullptr;
    const std::span<const SourceFile> headers = kernel_headers();
    std::vector<const char*> names, texts;
    for (const SourceFile& header : headers) {
        names.push_back(header.name);
        texts.push_back(header.text);
    }
    nvrtcResult result = n.create(&program, kernel_source(), "fp8_gemm.cu",
                                  static_cast<int>(headers.size()), texts.data(), names.data());
    const std::string config = "-DDSA_KERNEL_CONFIG=" + initialisers(c),
                      architecture = std::string("-arch=") + kArchitecture;
    const char* options[] = {architecture.c_str(), "-std=c++20", "-default-device", config.c_str()};
    if (result == NVRTC_SUCCESS)
        result = n.compile(program, static_cast<int>(std::size(options)), options);
    size_t size = 0;
    std::vector<unsigned char> cubin;
    std::string log;
    if (result == NVRTC_SUCCESS) {
        n.cubin_size(program, &size);
        cubin.resize(size);
        n.cubin(program, reinterpret_cast<char*>(cubin.data()));
    } else if (program != nullptr && n.log_size(program, &size) == NVRTC_SUCCESS) {
        log.resize(size);
        n.log(program, log.data());
    }
    if (program != nullptr) n.destroy(&program);
    if (!is_cubin(cubin))
        throw_error(ErrorCode::kInternal, "NVRTC does not compile the kernel ", initialisers(c),
                    ": ", n.error_string(result), ": ", log);
    return cubin;
}

#else

std::string compiler_version() {
    return "none";
}
std::vector<unsigned char> compile(const KernelConfig&) {
    return {};
}

#endif

}  // namespace

std::string why_no_compiler() {
#ifdef DSA_HAS_NVRTC
    if (nvrtc().complete) return "";
    return nvrtc().library == nullptr
               ? "libnvrtc.so of CUDA was not found (DSA_NVRTC=PATH names it)"
               : "libnvrtc.so lacks functions of CUDA 13";
#else
    return "built without nvrtc.h";
#endif
}

fs::path kernel_cache_folder() {
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
        return fs::path(cache) / "dsa" / "cuda";
    if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
        return fs::path(home) / ".cache" / "dsa" / "cuda";
    return {};
}

std::string kernel_file_name(const KernelConfig& c) {
    std::string config = initialisers(c).substr(std::strlen("Groups::k"));
    for (char& letter : config)
        if (letter == ',') letter = '-';
    return std::string("fp8_gemm-") + kKernelSourceDigest + "-nvrtc" + compiler_version() + "-" +
           kArchitecture + "-" + config + ".cubin";
}

std::vector<unsigned char> compiled_kernel(const KernelConfig& c, const fs::path& folder) {
    if (const std::string why = why_no_compiler(); !why.empty())
        throw_error(ErrorCode::kUnsupported, why);
    const fs::path path = folder / kernel_file_name(c);
    if (!folder.empty())
        if (std::vector<unsigned char> kept = read(path); is_cubin(kept)) return kept;
    std::vector<unsigned char> cubin = compile(c);
    if (!folder.empty()) keep(cubin, path);
    return cubin;
}

}  // namespace dsa::gemm::cuda
