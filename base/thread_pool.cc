#include "base/thread_pool.h"

#include <utility>

#include "base/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dsa {
namespace {

// Some tens of microseconds: longer than the serial code between two regions of a decode step.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads) {
    DSA_CHECK(num_threads >= 1, "thread pool: num_threads is ", num_threads, ", expected >= 1");
    workers_.reserve(static_cast<size_t>(num_threads - 1));
    try {
        for (int t = 1; t < num_threads; ++t) workers_.emplace_back([this, t] { worker_loop(t); });
    } catch (...) {
        stop();  // those that did start
        throw;
    }
}

ThreadPool::~ThreadPool() {
    stop();
}

void ThreadPool::stop() {
    stop_requested_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::work(int thread) {
    const int64_t begin = n_ * thread / num_threads_;
    const int64_t end = n_ * (thread + 1) / num_threads_;
    if (begin == end) return;
    try {
        fn_(ctx_, begin, end, thread);
    } catch (...) {
        const std::lock_guard lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
    }
}

void ThreadPool::run(int64_t n, Fn fn, void* ctx) {
    std::unique_lock lock(region_lock_, std::defer_lock);
    if (leased_to_.load(std::memory_order_relaxed) != std::this_thread::get_id()) lock.lock();
    n_ = n;
    fn_ = fn;
    ctx_ = ctx;
    pending_.store(num_threads_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    work(0);
    for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins) {
        if (spins < kSpins) {
            pause();
        } else {
            std::this_thread::yield();  // more threads than free cores
        }
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::worker_loop(int thread) {
    uint64_t seen = 0;
    for (;;) {
        uint64_t now = generation_.load(std::memory_order_acquire);
        for (int spins = 0; now == seen && spins < kSpins; ++spins) {
            pause();
            now = generation_.load(std::memory_order_acquire);
        }
        if (now == seen) {
            generation_.wait(seen, std::memory_order_acquire);
            continue;
        }
        seen = now;
        if (stop_requested_.load(std::memory_order_relaxed)) return;
        work(thread);
        pending_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace dsa
