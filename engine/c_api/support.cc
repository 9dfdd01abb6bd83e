#include "engine/c_api/support.h"

#include <cstdio>
#include <new>

namespace dsa::c_api {
namespace {

// A fixed buffer, so that keeping the message cannot fail itself.
thread_local char last_error[8192] = "";

void keep(const char* message) noexcept {
    std::snprintf(last_error, sizeof(last_error), "%s", message);
}

dsa_status status_of(ErrorCode code) noexcept {
    switch (code) {
        case ErrorCode::kInvalidArgument:
            return DSA_ERROR_INVALID_ARGUMENT;
        case ErrorCode::kNotFound:
            return DSA_ERROR_NOT_FOUND;
        case ErrorCode::kInvalidModel:
            return DSA_ERROR_INVALID_MODEL;
        case ErrorCode::kUnsupported:
            return DSA_ERROR_UNSUPPORTED;
        case ErrorCode::kContextOverflow:
            return DSA_ERROR_CONTEXT_OVERFLOW;
        case ErrorCode::kOutOfMemory:
            return DSA_ERROR_OUT_OF_MEMORY;
        case ErrorCode::kBusy:
            return DSA_ERROR_BUSY;
        case ErrorCode::kCancelled:
            return DSA_ERROR_CANCELLED;
        case ErrorCode::kClosed:
            return DSA_ERROR_CLOSED;
        case ErrorCode::kInternal:
            break;
    }
    return DSA_ERROR_INTERNAL;
}

}  // namespace

dsa_status record_exception() noexcept {
    try {
        throw;
    } catch (const Error& error) {
        keep(error.what());
        return status_of(error.code());
    } catch (const BufferTooSmall& small) {
        std::snprintf(last_error, sizeof(last_error),
                      "the buffer holds %zu elements, needed are %zu", small.capacity,
                      small.needed);
        return DSA_ERROR_BUFFER_TOO_SMALL;
    } catch (const std::bad_alloc&) {
        keep("out of memory");
        return DSA_ERROR_OUT_OF_MEMORY;
    } catch (const std::exception& error) {
        keep(error.what());
    } catch (...) {
        keep("an exception of unknown type");
    }
    return DSA_ERROR_INTERNAL;
}

// Never destroyed: another thread may still be in a call when the program ends.
HandleTable<dsa_engine, Engine>& engines() {
    static auto* table = new HandleTable<dsa_engine, Engine>(1);
    return *table;
}
HandleTable<dsa_session, SessionObject>& sessions() {
    static auto* table = new HandleTable<dsa_session, SessionObject>(2);
    return *table;
}
HandleTable<dsa_sampler, SamplerObject>& samplers() {
    static auto* table = new HandleTable<dsa_sampler, SamplerObject>(3);
    return *table;
}

}  // namespace dsa::c_api

const char* dsa_last_error(void) {
    return dsa::c_api::last_error;
}

const char* dsa_version(void) {
    return DSA_VERSION;
}

const char* dsa_status_name(dsa_status status) {
    switch (status) {
        case DSA_OK:
            return "ok";
        case DSA_ERROR_BUFFER_TOO_SMALL:
            return "buffer too small";
        default:
            break;
    }
    using dsa::ErrorCode;
    for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code)
        if (dsa::c_api::status_of(static_cast<ErrorCode>(code)) == status)
            return dsa::to_string(static_cast<ErrorCode>(code));
    return "unknown status";
}
