#pragma once
// What every function of the C interface needs: exceptions to codes, handles, structs that grow,
// buffers of the caller. Contracts: dsa/dsa.h.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <unordered_map>

#include "dsa/dsa.h"
#include "dsa/engine.h"

namespace dsa::c_api {

// Thrown where the interface has a code that dsa::Error does not know.
struct BufferTooSmall {
    size_t needed;
    size_t capacity;
};

// Keeps the message of the exception in flight for dsa_last_error(); returns its code.
dsa_status record_exception() noexcept;

// Runs the body of an interface function.
template <typename Body>
dsa_status guarded(Body&& body) noexcept {
    try {
        body();
        return DSA_OK;
    } catch (...) {
        return record_exception();
    }
}

// Numbers that stand for objects behind the pointer types. A number is never used twice, so that a
// handle that was closed is an error and not a crash.
template <typename Handle, typename Object>
class HandleTable {
  public:
    Handle* add(std::shared_ptr<Object> object) {
        const std::lock_guard lock(mutex_);
        next_ += kStep;
        objects_.emplace(next_, std::move(object));
        return reinterpret_cast<Handle*>(next_);  // NOLINT(performance-no-int-to-ptr): a number
    }
    std::shared_ptr<Object> get(const Handle* handle, const char* name) const {
        const std::lock_guard lock(mutex_);
        const auto found = objects_.find(reinterpret_cast<uintptr_t>(handle));
        if (found == objects_.end()) fail(handle, name);
        return found->second;
    }
    std::shared_ptr<Object> remove(const Handle* handle, const char* name) {
        const std::lock_guard lock(mutex_);
        const auto found = objects_.find(reinterpret_cast<uintptr_t>(handle));
        if (found == objects_.end()) fail(handle, name);
        std::shared_ptr<Object> object = std::move(found->second);
        objects_.erase(found);
        return object;
    }

    explicit HandleTable(uintptr_t kind) : next_(kind) {}

  private:
    static constexpr uintptr_t kStep = 16;  // the low bits tell the kinds of handles apart

    [[noreturn]] static void fail(const Handle* handle, const char* name) {
        throw_error(ErrorCode::kInvalidArgument, name,
                    handle == nullptr ? " is NULL" : " is not an open handle of this kind");
    }

    mutable std::mutex mutex_;
    uintptr_t next_;
    std::unordered_map<uintptr_t, std::shared_ptr<Object>> objects_;
};

struct SessionObject {
    Session session;
    std::atomic<bool> in_call{false};

    explicit SessionObject(Session s) : session(std::move(s)) {}
};

struct SamplerObject {
    Sampler sampler;
    std::atomic<bool> in_call{false};

    explicit SamplerObject(const SamplingParams& params) : sampler(params) {}
};

HandleTable<dsa_engine, Engine>& engines();
HandleTable<dsa_session, SessionObject>& sessions();
HandleTable<dsa_sampler, SamplerObject>& samplers();

inline std::shared_ptr<Engine> engine_of(dsa_engine* engine) {
    return engines().get(engine, "engine");
}

// An object for the time of one call; kBusy if it is in one already.
template <typename Object>
class InCall {
  public:
    InCall(std::shared_ptr<Object> object, const char* name) : object_(std::move(object)) {
        if (object_->in_call.exchange(true))
            throw_error(ErrorCode::kBusy, name,
                        " is in a call already (one thread at a time, and no call out of a "
                        "callback)");
    }
    ~InCall() { object_->in_call.store(false); }
    InCall(const InCall&) = delete;
    InCall& operator=(const InCall&) = delete;
    Object* operator->() const { return object_.get(); }

  private:
    std::shared_ptr<Object> object_;
};

inline InCall<SessionObject> enter(dsa_session* session) {
    return {sessions().get(session, "session"), "session"};
}

template <typename T>
T& required(T* pointer, const char* name) {
    if (pointer == nullptr) throw_error(ErrorCode::kInvalidArgument, name, " is NULL");
    return *pointer;
}

template <typename T>
std::span<const T> array(const T* data, size_t size, const char* name) {
    if (size > 0) required(data, name);
    if (size > PTRDIFF_MAX / sizeof(T))
        throw_error(ErrorCode::kInvalidArgument, name, " has ", size, " elements");
    return {data, size};
}

template <typename T>
size_t size_of(const T& s, const char* name) {
    if (s.size < sizeof(size_t) || s.size > 4096)
        throw_error(ErrorCode::kInvalidArgument, name, ".size is ", s.size,
                    ", expected the size of the struct");
    return s.size;
}

// A struct of a caller that may be older (shorter) or newer; null: all zero. What a newer caller
// asks for beyond what is known here must be zero.
template <typename T>
T read_struct(const T* from, const char* name) {
    T known{};
    known.size = sizeof(T);
    if (from == nullptr) return known;
    const size_t size = size_of(*from, name);
    const auto* bytes = reinterpret_cast<const unsigned char*>(from);
    for (size_t i = sizeof(T); i < size; ++i)
        if (bytes[i] != 0)
            throw_error(ErrorCode::kUnsupported, name,
                        " asks for something that this version of the library does not have (size ",
                        size, ", known ", sizeof(T), ")");
    std::memcpy(&known, from, std::min(size, sizeof(T)));
    known.size = sizeof(T);
    return known;
}

// As much of `known` as the caller's struct holds; its size stays.
template <typename T>
void write_struct(const T& known, T* to, const char* name) {
    const size_t size = size_of(required(to, name), name);
    std::memcpy(reinterpret_cast<unsigned char*>(to) + sizeof(size_t),
                reinterpret_cast<const unsigned char*>(&known) + sizeof(size_t),
                std::min(size, sizeof(T)) - sizeof(size_t));
}

template <typename T>
void write_array(std::span<const T> from, T* to, size_t capacity, size_t* count) {
    required(count, "count") = from.size();
    if (capacity > 0) required(to, "buffer");
    if (from.size() > capacity) throw BufferTooSmall{from.size(), capacity};
    std::copy(from.begin(), from.end(), to);
}

inline void write_text(std::string_view text, char* to, size_t capacity, size_t* count) {
    const std::string terminated = std::string(text) + '\0';
    write_array<char>(terminated, to, capacity, count);
}

}  // namespace dsa::c_api
