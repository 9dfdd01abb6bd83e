// What bf16_gemm_nt asks of cuBLASLt, against a stand-in on host memory: needs no GPU.

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <vector>

#include "base/device.h"
#include "dsa/error.h"
#include "gemm/gemm_cuda.h"

namespace dsa {
namespace {

// A [m, k], B [n, k], D [m, n]; rows of A and D with a gap behind.
struct Case {
    Case(int64_t rows, int64_t columns, int64_t inner, bool f32_out)
        : m(rows), n(columns), k(inner), f32(f32_out), a(random(m * (k + 8))), b(random(n * k)) {
        d.resize(static_cast<size_t>(m * (n + 8) * (f32 ? 4 : 2)) / sizeof(uint64_t));
        params = {m,
                  {a.data(), DType::kBF16, k + 8, nullptr, 0, 0},
                  {b.data(), DType::kBF16, nullptr, n, k},
                  {d.data(), f32 ? DType::kF32 : DType::kBF16, n + 8}};
    }
    static std::vector<bf16> random(int64_t count) {
        static std::mt19937 bits(1);
        std::normal_distribution<float> normal;
        std::vector<bf16> x(static_cast<size_t>(count));
        for (bf16& v : x) v = to_bf16(normal(bits));
        return x;
    }
    float expected(int64_t row, int64_t col) const {
        double sum = 0.0;
        for (int64_t i = 0; i < k; ++i)
            sum += double{to_float(a[static_cast<size_t>(row * (k + 8) + i)])} *
                   double{to_float(b[static_cast<size_t>(col * k + i)])};
        const auto value = static_cast<float>(sum);
        return f32 ? value : to_float(to_bf16(value));
    }
    float found(int64_t row, int64_t col) const {
        const int64_t at = row * (n + 8) + col;
        if (f32) return reinterpret_cast<const float*>(d.data())[at];
        return to_float(reinterpret_cast<const bf16*>(d.data())[at]);
    }

    int64_t m, n, k;
    bool f32;
    std::vector<bf16> a, b;
    std::vector<uint64_t> d;
    gemm::GemmParams params;
};

TEST(CudaBf16, AsksForTheProduct) {
    CudaExec exec;
    for (const bool f32 : {false, true})
        for (const int64_t m : {1, 5, 130}) {
            Case c(m, 24, 40, f32);
            gemm::bf16_gemm_nt(exec, c.params);
            for (int64_t row = 0; row < c.m; ++row)
                for (int64_t col = 0; col < c.n; ++col)
                    ASSERT_EQ(c.found(row, col), c.expected(row, col))
                        << m << " " << row << " " << col;
        }
}

TEST(CudaBf16, RefusesBadArguments) {
    CudaExec exec;
    const auto refuses = [&](auto change) {
        Case c(4, 24, 40, false);
        change(c.params);
        try {
            gemm::bf16_gemm_nt(exec, c.params);
            ADD_FAILURE();
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
        }
    };
    refuses([](auto& p) { p.m = 0; });
    refuses([](auto& p) { p.b.n = 20; });
    refuses([](auto& p) { p.b.k = 36; });
    refuses([](auto& p) { p.a.dtype = DType::kE4M3; });
    refuses([](auto& p) { p.b.dtype = DType::kE4M3; });
    refuses([](auto& p) { p.d.dtype = DType::kE4M3; });
    refuses([](auto& p) { p.a.data = nullptr; });
    refuses([](auto& p) { p.d.data = static_cast<uint8_t*>(p.d.data) + 2; });
    refuses([](auto& p) { p.a.ld = 32; });
    refuses([](auto& p) { p.d.ld = 26; });
}

TEST(CudaBf16, NamesALibraryThatDoesNotOpen) {
    ::setenv("DSA_SOME_LIBRARY", "/no/such/library.so", 1);
    try {
        device::open_toolkit_library("libcublasLt.so", "DSA_SOME_LIBRARY");
        ADD_FAILURE();
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
        for (const char* part : {"DSA_SOME_LIBRARY", "libcublasLt.so", "/no/such/library.so"})
            EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
}

}  // namespace
}  // namespace dsa

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    ::setenv("DSA_CUBLASLT", FAKE_CUBLASLT, 1);
    return RUN_ALL_TESTS();
}
