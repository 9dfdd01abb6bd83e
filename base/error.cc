#include "dsa/error.h"

#include "base/printable.h"

namespace dsa {
namespace {

constexpr size_t kMaxMessage = 2000;  // bytes, before control characters are escaped

}  // namespace

Error::Error(ErrorCode code, const std::string& message)
    : std::runtime_error(printable(message, kMaxMessage)), code_(code) {}

Error::~Error() = default;

const char* to_string(ErrorCode code) {
    switch (code) {
        case ErrorCode::kInvalidArgument:
            return "invalid argument";
        case ErrorCode::kNotFound:
            return "not found";
        case ErrorCode::kInvalidModel:
            return "invalid model";
        case ErrorCode::kUnsupported:
            return "unsupported";
        case ErrorCode::kContextOverflow:
            return "context overflow";
        case ErrorCode::kOutOfMemory:
            return "out of memory";
        case ErrorCode::kBusy:
            return "busy";
        case ErrorCode::kCancelled:
            return "cancelled";
        case ErrorCode::kClosed:
            return "closed";
        case ErrorCode::kInternal:
            return "internal error";
    }
    return "unknown error";
}

}  // namespace dsa
