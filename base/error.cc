#include "dsa/error.h"

namespace dsa {

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
