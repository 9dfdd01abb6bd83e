#include "engine/blas.h"

#include <dlfcn.h>

#include "dsa/error.h"

namespace dsa {
namespace {

constexpr const char* kLibrary = "libopenblas.so.0";

void* open_library() {
    void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
        throw_error(ErrorCode::kNotFound,
                    "the reference path needs OpenBLAS (Debian: libopenblas0), ", dlerror());
    return library;
}

template <typename Function>
Function symbol(void* library, const char* name) {
    void* address = dlsym(library, name);
    if (address == nullptr) throw_error(ErrorCode::kNotFound, kLibrary, ": has no function ", name);
    return reinterpret_cast<Function>(address);
}

Blas open_blas() {
    void* library = open_library();  // stays open
    symbol<void (*)(int)>(library, "openblas_set_num_threads")(1);
    return {symbol<decltype(Blas::sgemm)>(library, "cblas_sgemm")};
}

}  // namespace

const Blas& blas() {
    static const Blas opened = open_blas();
    return opened;
}

}  // namespace dsa
