#pragma once
// A fixed set of threads for data-parallel regions inside an op. The partition is static, so which
// thread computes what depends on the sizes only; results must not depend on it at all.
// Workers spin for some microseconds after a region, then park. The calling thread takes part.
// One pool may be used from several threads: regions of different callers run one after another. A
// Lease keeps the pool for the regions of one caller.
// A region must not start another one on the same pool. Nothing thrown in a region gets out of it
// other than through the caller: the first exception is rethrown there after all threads are done.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace dsa {

// Lets callers in by the order in which they came: none waits for more than those before it.
class TicketLock {
  public:
    void lock() {
        const uint64_t mine = next_.fetch_add(1, std::memory_order_relaxed);
        uint64_t now = serving_.load(std::memory_order_acquire);
        while (now != mine) {
            serving_.wait(now, std::memory_order_acquire);
            now = serving_.load(std::memory_order_acquire);
        }
    }
    void unlock() {
        serving_.fetch_add(1, std::memory_order_release);
        serving_.notify_all();
    }

  private:
    std::atomic<uint64_t> next_{0};
    std::atomic<uint64_t> serving_{0};
};

class ThreadPool {
  public:
    // num_threads >= 1, the caller's thread included.
    explicit ThreadPool(int num_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int num_threads() const { return num_threads_; }

    // The pool for the calling thread alone, to the end of the scope. Not recursive.
    class Lease {
      public:
        explicit Lease(ThreadPool& pool) : pool_(pool), lock_(pool.region_lock_) {
            pool_.leased_to_.store(std::this_thread::get_id(), std::memory_order_relaxed);
        }
        ~Lease() { pool_.leased_to_.store(std::thread::id(), std::memory_order_relaxed); }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;

      private:
        ThreadPool& pool_;
        std::unique_lock<TicketLock> lock_;
    };

    // Splits [0, n) into one contiguous range a thread and calls body(begin, end, thread) on each
    // thread that has a range. thread is in [0, num_threads()).
    template <typename Body>
    void parallel_for(int64_t n, Body&& body) {
        if (n <= 0) return;
        if (num_threads_ == 1 || n == 1) {
            body(int64_t{0}, n, 0);
            return;
        }
        using Plain = std::remove_reference_t<Body>;
        run(
            n,
            [](void* ctx, int64_t begin, int64_t end, int thread) {
                (*static_cast<Plain*>(ctx))(begin, end, thread);
            },
            const_cast<std::remove_const_t<Plain>*>(&body));
    }

  private:
    using Fn = void (*)(void* ctx, int64_t begin, int64_t end, int thread);
    void run(int64_t n, Fn fn, void* ctx);
    void stop();
    void work(int thread);
    void worker_loop(int thread);

    const int num_threads_;
    TicketLock region_lock_;  // one region or lease at a time
    // Holder of a lease. Equal to the reader's own id only if the reader wrote it itself.
    std::atomic<std::thread::id> leased_to_{};

    // The region; written by the caller before generation_ is raised.
    int64_t n_ = 0;
    Fn fn_ = nullptr;
    void* ctx_ = nullptr;
    std::exception_ptr error_;
    std::mutex error_mutex_;

    alignas(64) std::atomic<uint64_t> generation_{0};
    alignas(64) std::atomic<int> pending_{0};  // workers still in the region
    std::atomic<bool> stop_requested_{false};
    std::vector<std::thread> workers_;
};

}  // namespace dsa
