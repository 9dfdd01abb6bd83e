// base/thread_pool.h: the partition, errors, several callers, and waking up parked workers.

#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dsa/error.h"

namespace dsa {
namespace {

struct Range {
    int64_t begin = -1;
    int64_t end = -1;
    bool operator==(const Range&) const = default;
};

// The range that each thread of the pool got; {-1, -1} without one.
std::vector<Range> partition(ThreadPool& pool, int64_t n) {
    std::vector<Range> ranges(static_cast<size_t>(pool.num_threads()));
    pool.parallel_for(n, [&](int64_t begin, int64_t end, int thread) {
        Range& range = ranges.at(static_cast<size_t>(thread));
        EXPECT_EQ(range, Range{}) << "thread " << thread << " called twice";
        range = {begin, end};
    });
    return ranges;
}

// CPU time of the whole process, in seconds.
double cpu_seconds() {
    timespec t{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void sleep_ms(int ms) {
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

class ThreadPoolSizes : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolSizes, EveryIndexExactlyOnce) {
    ThreadPool pool(GetParam());
    EXPECT_EQ(pool.num_threads(), GetParam());
    for (int64_t n = 0; n <= 100; ++n) {
        std::vector<int> visits(static_cast<size_t>(n));  // each index belongs to one thread
        pool.parallel_for(n, [&](int64_t begin, int64_t end, int thread) {
            ASSERT_GE(thread, 0);
            ASSERT_LT(thread, GetParam());
            ASSERT_LT(begin, end) << "empty range";
            for (int64_t i = begin; i < end; ++i) ++visits.at(static_cast<size_t>(i));
        });
        EXPECT_EQ(std::count(visits.begin(), visits.end(), 1), n);
    }
    pool.parallel_for(-1, [](int64_t, int64_t, int) { ADD_FAILURE() << "called for n = -1"; });
}

TEST_P(ThreadPoolSizes, PartitionDependsOnSizesOnly) {
    ThreadPool pool(GetParam());
    ThreadPool other(GetParam());
    for (int64_t n = 1; n <= 100; ++n) {
        const std::vector<Range> ranges = partition(pool, n);
        EXPECT_EQ(partition(pool, n), ranges) << n;
        EXPECT_EQ(partition(other, n), ranges) << n;

        // Contiguous, in the order of the threads, all threads busy, sizes even.
        int64_t next = 0;
        int64_t busy = 0;
        for (const Range& range : ranges) {
            if (range == Range{}) continue;
            EXPECT_EQ(range.begin, next) << n;
            next = range.end;
            EXPECT_LE(range.end - range.begin, (n + GetParam() - 1) / GetParam()) << n;
            ++busy;
        }
        EXPECT_EQ(next, n);
        EXPECT_EQ(busy, std::min<int64_t>(n, GetParam()));
    }
}

TEST_P(ThreadPoolSizes, ExceptionComesOutAfterAllThreadsAreDone) {
    ThreadPool pool(GetParam());
    const int64_t n = 64;
    for (int thrower = 0; thrower < GetParam(); ++thrower) {
        std::atomic<int> finished = 0;
        std::string message;
        try {
            pool.parallel_for(n, [&](int64_t, int64_t, int thread) {
                if (thread == thrower)
                    throw_error(ErrorCode::kUnsupported, "thread ", thread, " throws");
                sleep_ms(2);
                ++finished;
            });
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
            EXPECT_EQ(finished.load(), GetParam() - 1);
            message = e.what();
        }
        EXPECT_EQ(message, "thread " + std::to_string(thrower) + " throws");

        std::atomic<int64_t> sum = 0;  // the error belongs to its region
        pool.parallel_for(n, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
        EXPECT_EQ(sum.load(), n);
    }
}

TEST_P(ThreadPoolSizes, AllThreadsThrow) {
    ThreadPool pool(GetParam());
    for (int i = 0; i < 50; ++i) {
        EXPECT_THROW(pool.parallel_for(
                         64, [](int64_t, int64_t, int) { throw std::runtime_error("all throw"); }),
                     std::runtime_error);
    }
    EXPECT_THROW(
        pool.parallel_for(1, [](int64_t, int64_t, int) { throw std::runtime_error("inline"); }),
        std::runtime_error);
    EXPECT_EQ(partition(pool, 64).at(0).begin, 0);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolSizes, testing::Values(1, 2, 3, 8));

TEST(ThreadPool, RefusesNoThreads) {
    for (const int n : {0, -1}) {
        try {
            ThreadPool pool(n);
            ADD_FAILURE() << "accepted " << n;
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        }
    }
}

TEST(ThreadPool, StartsAndStopsWithoutWork) {
    for (int i = 0; i < 200; ++i) ThreadPool pool(1 + i % 4);
}

TEST(ThreadPool, BodyIsNeitherCopiedNorMoved) {
    struct Body {
        explicit Body(std::atomic<int64_t>& total) : sum(total) {}
        Body(const Body&) = delete;
        Body& operator=(const Body&) = delete;
        void operator()(int64_t begin, int64_t end, int) const { sum += end - begin; }
        std::atomic<int64_t>& sum;
    };
    ThreadPool pool(2);
    std::atomic<int64_t> sum = 0;
    const Body body(sum);
    pool.parallel_for(10, body);
    pool.parallel_for(10, Body(sum));
    EXPECT_EQ(sum.load(), 20);
}

// What one region wrote, the caller and all threads of the next region read.
TEST(ThreadPool, RegionsAreOrdered) {
    ThreadPool pool(3);
    std::vector<int64_t> values(99, 0);
    for (int64_t round = 0; round < 500; ++round) {
        pool.parallel_for(99, [&](int64_t, int64_t, int) {
            ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 99 * round);
        });
        pool.parallel_for(99, [&](int64_t begin, int64_t end, int) {
            for (int64_t i = begin; i < end; ++i) ++values[static_cast<size_t>(98 - i)];
        });
        ASSERT_EQ(std::count(values.begin(), values.end(), round + 1), 99);
    }
}

TEST(ThreadPool, RegionsOfDifferentCallersDoNotOverlap) {
    constexpr int kCallers = 4;
    ThreadPool pool(3);
    std::vector<std::atomic<int>> active(kCallers);  // threads in a region of this caller
    std::vector<int64_t> sums(kCallers, 0);
    std::atomic<int> overlaps = 0;
    std::vector<std::thread> callers;
    callers.reserve(kCallers);
    for (int caller = 0; caller < kCallers; ++caller) {
        callers.emplace_back([&, caller] {
            const auto self = static_cast<size_t>(caller);
            for (int region = 0; region < 300; ++region) {
                std::vector<int64_t> parts(3, 0);
                pool.parallel_for(30 + caller, [&](int64_t begin, int64_t end, int thread) {
                    ++active[self];
                    for (size_t c = 0; c < kCallers; ++c)
                        if (c != self && active[c] != 0) ++overlaps;
                    parts[static_cast<size_t>(thread)] = end - begin;
                    --active[self];
                });
                sums[self] += std::accumulate(parts.begin(), parts.end(), int64_t{0});
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(overlaps.load(), 0);
    for (int caller = 0; caller < kCallers; ++caller)
        EXPECT_EQ(sums[static_cast<size_t>(caller)], 300 * (30 + caller)) << caller;
}

// An exception reaches the caller whose region threw it, and no other.
TEST(ThreadPool, ALeaseKeepsOthersOut) {
    ThreadPool pool(2);
    int64_t counter = 0;  // what the lease guards
    const auto caller = [&] {
        for (int round = 0; round < 200; ++round) {
            const ThreadPool::Lease lease(pool);
            const int64_t before = counter;
            for (int region = 0; region < 3; ++region) {
                std::atomic<int64_t> sum{0};
                pool.parallel_for(10, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
                EXPECT_EQ(sum.load(), 10);
                EXPECT_EQ(counter, before);
            }
            ++counter;
        }
    };
    std::vector<std::thread> callers;
    callers.reserve(4);
    for (int i = 0; i < 4; ++i) callers.emplace_back(caller);
    for (std::thread& thread : callers) thread.join();
    EXPECT_EQ(counter, 800);
    // A region without a lease, behind one.
    pool.parallel_for(10, [](int64_t, int64_t, int) {});
}

TEST(ThreadPool, ExceptionsOfDifferentCallersAreKeptApart) {
    ThreadPool pool(2);
    constexpr int kCallers = 3;
    std::atomic<int> wrong = 0;
    std::vector<std::thread> callers;
    callers.reserve(kCallers);
    for (int caller = 0; caller < kCallers; ++caller) {
        callers.emplace_back([&, caller] {
            for (int region = 0; region < 300; ++region) {
                const bool throws = (region + caller) % 3 == 0;
                const std::string mine = std::to_string(caller) + "/" + std::to_string(region);
                std::string caught;
                try {
                    pool.parallel_for(8, [&](int64_t, int64_t, int) {
                        if (throws) throw std::runtime_error(mine);
                    });
                } catch (const std::runtime_error& e) {
                    caught = e.what();
                }
                if (caught != (throws ? mine : "")) ++wrong;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong.load(), 0);
}

TEST(ThreadPool, ManyTinyRegions) {
    // More threads than cores take turns, so each of their regions costs scheduling time.
    for (const auto& [threads, regions] : {std::pair{2, 100'000}, {3, 3000}, {8, 1000}}) {
        ThreadPool pool(threads);
        std::vector<int64_t> counts(static_cast<size_t>(threads) * 16, 0);  // a cache line each
        for (int region = 0; region < regions; ++region) {
            pool.parallel_for(threads, [&](int64_t begin, int64_t end, int thread) {
                counts[static_cast<size_t>(thread) * 16] += end - begin;
            });
        }
        for (int t = 0; t < threads; ++t)
            EXPECT_EQ(counts[static_cast<size_t>(t) * 16], regions) << threads << ", " << t;
    }
}

TEST(ThreadPool, ParkedWorkersWakeUp) {
    ThreadPool pool(8);
    for (int round = 0; round < 20; ++round) {
        sleep_ms(round % 2 == 0 ? 10 : 1);  // far longer than the workers spin, and about as long
        std::atomic<int64_t> sum = 0;
        pool.parallel_for(80, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
        EXPECT_EQ(sum.load(), 80);
    }
}

TEST(ThreadPool, IdleWorkersTakeNoTime) {
    ThreadPool pool(8);
    pool.parallel_for(8, [](int64_t, int64_t, int) {});
    sleep_ms(50);  // time to park
    const double before = cpu_seconds();
    sleep_ms(300);
    EXPECT_LT(cpu_seconds() - before, 0.1);  // one spinning worker: 0.3
}

}  // namespace
}  // namespace dsa
