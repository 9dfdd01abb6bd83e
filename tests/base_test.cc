// The smaller parts of base: errors, arena and buffers, mapped files, views, ISA choice, memory.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/arena.h"
#include "base/check.h"
#include "base/isa.h"
#include "base/mapped_file.h"
#include "base/memory_info.h"
#include "base/paging.h"
#include "base/tensor_view.h"
#include "dsa/error.h"
#include "testing/checkpoint_builder.h"
#include "testing/expect_error.h"

namespace dsa {
namespace {

using testing::expect_error;

// Runs `call`, which must throw an Error of this code whose message holds all of `parts`.
bool is_aligned(const void* p) {
    return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(kAlignment) == 0;
}

TEST(Error, CodesHaveNames) {
    std::set<std::string> names;
    for (const ErrorCode code :
         {ErrorCode::kInvalidArgument, ErrorCode::kNotFound, ErrorCode::kInvalidModel,
          ErrorCode::kUnsupported, ErrorCode::kContextOverflow, ErrorCode::kOutOfMemory,
          ErrorCode::kInternal})
        names.insert(to_string(code));
    EXPECT_EQ(names.size(), 7U);
    EXPECT_EQ(names.count(""), 0U);
}

TEST(Error, MessageIsPutTogether) {
    expect_error(
        [] { throw_error(ErrorCode::kInvalidModel, "a.json", ": expected ", 3, ", found ", 4.5); },
        ErrorCode::kInvalidModel, {"a.json: expected 3, found 4.5"});
    const int k = -2;
    expect_error([&] { DSA_CHECK(k > 0, "op: k is ", k, ", expected > 0"); },
                 ErrorCode::kInvalidArgument, {"op: k is -2, expected > 0"});
    EXPECT_NO_THROW(DSA_CHECK(k < 0, "op: k is ", k));
}

TEST(AlignedBuffer, ZeroedAndAligned) {
    for (const int64_t bytes : {1, 63, 64, 65, 100'000}) {
        const AlignedBuffer buffer(bytes);
        ASSERT_NE(buffer.data(), nullptr);
        EXPECT_GE(buffer.size(), bytes);
        EXPECT_TRUE(is_aligned(buffer.data()));
        EXPECT_EQ(std::count(buffer.data(), buffer.data() + buffer.size(), 0), buffer.size());
        buffer.data()[buffer.size() - 1] = 1;
    }
    EXPECT_EQ(AlignedBuffer(0).size(), 0);
    EXPECT_EQ(AlignedBuffer().data(), nullptr);
}

TEST(AlignedBuffer, MovesItsMemory) {
    AlignedBuffer a(128);
    uint8_t* data = a.data();
    data[5] = 42;
    AlignedBuffer b(std::move(a));
    EXPECT_EQ(b.data(), data);
    EXPECT_EQ(b.size(), 128);
    EXPECT_EQ(a.data(), nullptr);  // NOLINT(bugprone-use-after-move): what is left is specified
    EXPECT_EQ(a.size(), 0);

    AlignedBuffer c(64);
    c = std::move(b);
    EXPECT_EQ(c.data(), data);
    EXPECT_EQ(c.size(), 128);
    EXPECT_EQ(c.data()[5], 42);
}

TEST(AlignedBuffer, TooMuchIsAnError) {
    const int64_t bytes = int64_t{1} << 60;  // more than an address space
    expect_error([&] { const AlignedBuffer buffer(bytes); }, ErrorCode::kOutOfMemory,
                 {std::to_string(bytes)});
}

TEST(Arena, PiecesAreAlignedAndApart) {
    Arena arena(1024);
    uint8_t* a = arena.alloc<uint8_t>(1);
    float* b = arena.alloc<float>(17);
    double* c = arena.alloc<double>(8);
    EXPECT_TRUE(is_aligned(a));
    EXPECT_EQ(reinterpret_cast<uint8_t*>(b), a + 64);
    EXPECT_EQ(reinterpret_cast<uint8_t*>(c), a + 64 + 128);
    EXPECT_EQ(
        Arena::bytes_for<uint8_t>(1) + Arena::bytes_for<float>(17) + Arena::bytes_for<double>(8),
        arena.peak());
    EXPECT_EQ(arena.peak(), 256);
}

TEST(Arena, ScopeGivesBack) {
    Arena arena(1024);
    uint8_t* kept = arena.alloc<uint8_t>(64);
    uint8_t* inside = nullptr;
    {
        const Arena::Scope scope(arena);
        inside = arena.alloc<uint8_t>(128);
        {
            const Arena::Scope inner(arena);
            arena.alloc<uint8_t>(512);
        }
        EXPECT_EQ(arena.alloc<uint8_t>(64), inside + 128);
    }
    EXPECT_EQ(inside, kept + 64);
    EXPECT_EQ(arena.alloc<uint8_t>(960), inside);  // all that is left
    EXPECT_EQ(arena.peak(), 1024);
    try {
        const Arena::Scope scope(arena);
        throw_error(ErrorCode::kInternal, "unwinds");
    } catch (const Error&) {
        EXPECT_EQ(arena.alloc<uint8_t>(0), kept + 1024);
    }
}

TEST(Arena, OverflowIsAnInternalError) {
    Arena arena(256);
    arena.alloc<uint8_t>(100);  // takes 128
    expect_error([&] { arena.alloc<uint8_t>(129); }, ErrorCode::kInternal, {"256", "192", "128"});
    EXPECT_EQ(arena.peak(), 128);
    EXPECT_NE(arena.alloc<uint8_t>(128), nullptr);  // a refused request takes nothing
    expect_error([&] { arena.alloc<uint8_t>(1); }, ErrorCode::kInternal, {});
    Arena none;
    expect_error([&] { none.alloc<float>(1); }, ErrorCode::kInternal, {});
}

class MappedFileTest : public ::testing::Test {
  protected:
    void SetUp() override { std::filesystem::create_directories(dir_); }
    void TearDown() override { std::filesystem::remove_all(dir_); }

    std::filesystem::path write(const std::string& name, const std::string& contents) {
        std::ofstream(dir_ / name, std::ios::binary) << contents;
        return dir_ / name;
    }

    const std::filesystem::path dir_ = std::filesystem::path(::testing::TempDir()) /
                                       ("dsa_base_test." + std::to_string(::getpid()));
};

std::string contents(const MappedFile& file) {
    return {file.bytes().begin(), file.bytes().end()};
}

TEST_F(MappedFileTest, Contents) {
    std::string text(5000, 'x');  // more than a page
    text[0] = '\0';
    text[4999] = '\n';
    const auto path = write("file", text);
    const MappedFile file(path);
    EXPECT_EQ(contents(file), text);
    EXPECT_EQ(file.path(), path);
}

TEST_F(MappedFileTest, EmptyFile) {
    const MappedFile file(write("empty", ""));
    EXPECT_TRUE(file.bytes().empty());
    EXPECT_EQ(file.path().filename(), "empty");
}

TEST_F(MappedFileTest, WhatIsNoFileIsAnError) {
    const auto missing = dir_ / "missing";
    expect_error([&] { const MappedFile file(missing); }, ErrorCode::kNotFound, {missing.string()});
    expect_error([&] { const MappedFile file(dir_); }, ErrorCode::kNotFound,
                 {dir_.string(), "regular file"});
    expect_error([] { const MappedFile file("/dev/null"); }, ErrorCode::kNotFound,
                 {"/dev/null", "regular file"});
    const auto pipe = dir_ / "pipe";  // opening it must not wait for a writer
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    expect_error([&] { MappedFile{pipe}; }, ErrorCode::kNotFound, {"pipe", "not a regular file"});
}

TEST_F(MappedFileTest, MovesItsMapping) {
    MappedFile a(write("a", "first"));
    const uint8_t* data = a.bytes().data();
    MappedFile b(std::move(a));
    EXPECT_EQ(b.bytes().data(), data);
    EXPECT_TRUE(a.bytes().empty());  // NOLINT(bugprone-use-after-move): what is left is specified
    MappedFile c(write("c", "second"));
    c = std::move(b);
    EXPECT_EQ(c.bytes().data(), data);
    EXPECT_EQ(contents(c), "first");
    EXPECT_EQ(c.path().filename(), "a");
}

TEST(TensorView, SizesAndShape) {
    const std::array<float, 6> values{1, 2, 3, 4, 5, 6};
    const TensorView view{values.data(), DType::kF32, {2, 3}};
    EXPECT_EQ(view.numel(), 6);
    EXPECT_EQ(view.bytes(), 24);
    EXPECT_EQ(view.as<float>()[5], 6.0F);
    EXPECT_EQ((TensorView{nullptr, DType::kE4M3, {128, 0}}.bytes()), 0);
    EXPECT_EQ((TensorView{nullptr, DType::kBF16, {}}.bytes()), 2);  // a scalar
    EXPECT_EQ(shape_string({576, 7168}), "[576, 7168]");
    EXPECT_EQ(shape_string({}), "[]");
}

TEST(PageTable, PageOfAPosition) {
    std::array<uint8_t, 512> memory{};
    uint8_t* const pages[] = {memory.data() + 256, memory.data()};
    const PageTable table{pages, 16};
    EXPECT_EQ(table.page(0), memory.data() + 272);
    EXPECT_EQ(table.page(kPageTokens - 1), memory.data() + 272);
    EXPECT_EQ(table.page(kPageTokens), memory.data() + 16);
}

// Sets DSA_ISA for its life; nullptr: unset.
class IsaEnvironment {
  public:
    explicit IsaEnvironment(const char* value) {
        if (const char* old = std::getenv("DSA_ISA")) old_ = old;
        set(value);
    }
    ~IsaEnvironment() { set(old_ ? old_->c_str() : nullptr); }
    IsaEnvironment(const IsaEnvironment&) = delete;
    IsaEnvironment& operator=(const IsaEnvironment&) = delete;

  private:
    static void set(const char* value) {
        if (value == nullptr) {
            ::unsetenv("DSA_ISA");
        } else {
            ::setenv("DSA_ISA", value, 1);
        }
    }
    std::optional<std::string> old_;
};

TEST(Isa, NamesResolve) {
    const IsaEnvironment unset(nullptr);
    const std::vector<Isa>& supported = supported_isas();
    ASSERT_FALSE(supported.empty());
    EXPECT_EQ(supported.front(), Isa::kPortable);
    std::vector<Isa> ascending = supported;
    const auto bf16 = std::find(ascending.begin(), ascending.end(), Isa::kAvx512Bf16);
    if (ascending.end() - bf16 > 1 && bf16[1] == Isa::kAvx512)
        std::iter_swap(bf16, bf16 + 1);  // Intel
    EXPECT_TRUE(std::is_sorted(ascending.begin(), ascending.end()));
    EXPECT_EQ(to_string(Isa::kPortable), std::string("portable"));
    EXPECT_EQ(to_string(Isa::kAvx512), std::string("avx512"));
    EXPECT_EQ(to_string(Isa::kAvx512Bf16), std::string("avx512_bf16"));
    EXPECT_EQ(to_string(Isa::kAmx), std::string("amx"));
    for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
        const char* name = to_string(isa);
        const auto count = std::count(supported.begin(), supported.end(), isa);
        EXPECT_LE(count, 1);
        if (count == 1) {
            EXPECT_EQ(resolve_isa(name), isa);
        } else {
            expect_error([&] { resolve_isa(name); }, ErrorCode::kUnsupported, {name, "portable"});
        }
    }
    EXPECT_EQ(resolve_isa(""), supported.back());
}

TEST(Isa, UnknownNamesAreErrors) {
    const IsaEnvironment unset(nullptr);
    for (const char* name : {"avx3", "AVX512", "avx512 ", "avx512_bf1", "?"})
        expect_error([&] { resolve_isa(name); }, ErrorCode::kInvalidArgument, {name, "portable"});
}

TEST(Isa, EnvironmentOverrides) {
    const Isa best = supported_isas().back();
    {
        const IsaEnvironment env("portable");
        EXPECT_EQ(resolve_isa(""), Isa::kPortable);
        EXPECT_EQ(resolve_isa(to_string(best)), best);  // a name given beats it
    }
    {
        const IsaEnvironment env("");
        EXPECT_EQ(resolve_isa(""), best);
    }
    {
        const IsaEnvironment env("bogus");
        expect_error([] { resolve_isa(""); }, ErrorCode::kInvalidArgument, {"DSA_ISA", "bogus"});
        EXPECT_EQ(resolve_isa("portable"), Isa::kPortable);
    }
}

TEST(MemoryInfo, AvailableIsWithinTheMachine) {
    const int64_t available = available_memory();
    EXPECT_GT(available, 0);
    constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
    if (available == kUnknown) {
        EXPECT_FALSE(std::filesystem::exists("/proc/meminfo"));
    } else {
        EXPECT_LE(available, int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGE_SIZE));
    }
}

// A made-up system in which each file holds what the test writes.
class MemoryLimits : public ::testing::Test {
  protected:
    void write(const std::string& path, const std::string& text) const {
        const std::filesystem::path file = root_.path() / path;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file) << text;
    }
    int64_t available() const { return available_memory(root_.path().string()); }

    testing::TempDir root_;
};

TEST_F(MemoryLimits, NothingToReadIsNoLimit) {
    EXPECT_EQ(available(), std::numeric_limits<int64_t>::max());
}

TEST_F(MemoryLimits, SystemAlone) {
    write("proc/meminfo", "MemTotal:  9000 kB\nMemFree: 10 kB\nMemAvailable:    700 kB\n");
    EXPECT_EQ(available(), 700 * 1024);
    write("proc/self/cgroup", "0::/\nnonsense\n1:cpu:/a\n4:memory:relative\n");
    EXPECT_EQ(available(), 700 * 1024);
}

TEST_F(MemoryLimits, Version2CountsAncestorsAndGivesPageCacheBack) {
    write("proc/meminfo", "MemAvailable: 1000000 kB\n");
    write("proc/self/cgroup", "0::/outer/inner\n");
    const std::string inner = "sys/fs/cgroup/outer/inner/";
    write(inner + "memory.max", "max\n");
    write(inner + "memory.current", "5000\n");
    EXPECT_EQ(available(), 1000000 * 1024);
    write(inner + "memory.max", "90000\n");
    EXPECT_EQ(available(), 85000);
    write(inner + "memory.stat", "anon 1000\nfile 4000\ninactive_file 2500\nactive_file 1500\n");
    EXPECT_EQ(available(), 89000);
    write(inner + "memory.high", "80000\n");
    EXPECT_EQ(available(), 79000);
    write("sys/fs/cgroup/outer/memory.max", "10000\n");
    write("sys/fs/cgroup/outer/memory.current", "9000\n");
    EXPECT_EQ(available(), 1000);
    write("sys/fs/cgroup/outer/memory.current", "11000\n");
    EXPECT_EQ(available(), 0);
}

TEST_F(MemoryLimits, Version1InAContainerIsTheRootOfTheMount) {
    write("proc/self/cgroup", "0::/\n5:cpu:/x\n4:hugetlb,memory:/docker/0123\n");
    const std::string mount = "sys/fs/cgroup/memory/";
    write(mount + "memory.limit_in_bytes", "9223372036854771712\n");
    write(mount + "memory.usage_in_bytes", "60000\n");
    EXPECT_GT(available(), int64_t{1} << 62);
    write(mount + "memory.limit_in_bytes", "100000\n");
    EXPECT_EQ(available(), 40000);
    // Without total_ these are of this cgroup only, but usage is of its descendants too.
    write(mount + "memory.stat", "inactive_file 7\ntotal_inactive_file 20000\n");
    EXPECT_EQ(available(), 60000);
}

}  // namespace
}  // namespace dsa
