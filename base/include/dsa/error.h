#pragma once
// The one exception type that the library throws, from loading and from argument checks.
// Messages name the file, tensor, field or argument, what was found and what was expected. They are
// one line of valid UTF-8 of bounded length, whatever a damaged file holds: control characters are
// escaped, and of a message that is too long the middle is left out.

#include <sstream>
#include <stdexcept>
#include <string>

namespace dsa {

enum class ErrorCode {
    kInvalidArgument,  // a call that the API does not allow: bad token id, wrong option value
    kNotFound,         // no such file or folder
    kInvalidModel,     // a file of the model is damaged, incomplete or inconsistent
    kUnsupported,      // a valid model or option that this build does not implement
    kContextOverflow,  // more tokens than the context holds
    kOutOfMemory,      // the memory plan does not fit
    kBusy,             // the session is in a call already, on another thread or in a callback
    kCancelled,        // Session::cancel() stopped the call
    kClosed,           // the engine was closed
    kInternal,         // a broken invariant of the library itself
};

// "invalid argument", "not found", ...
const char* to_string(ErrorCode code);

class Error : public std::runtime_error {
  public:
    Error(ErrorCode code, const std::string& message);
    ~Error() override;
    ErrorCode code() const { return code_; }

  private:
    ErrorCode code_;
};

// throw_error(ErrorCode::kInvalidModel, path, ": expected ", a, ", found ", b);
template <typename... Parts>
[[noreturn]] void throw_error(ErrorCode code, const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw Error(code, message.str());
}

}  // namespace dsa
