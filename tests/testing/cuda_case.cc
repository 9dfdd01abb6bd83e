#include "testing/cuda_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "dsa/error.h"
#include "gemm/gemm_cuda.h"

extern "C" const unsigned char dsa_cuda_reference[];

namespace dsa::testing {
namespace {

using gemm::cuda::ceil_div;
using gemm::cuda::Groups;

constexpr int kPoison = 0xff;      // all bytes of an element: a NaN that no kernel writes
constexpr int kCheckedRows = 192;  // at most, of all groups

void launch_all(const device::Library& library, const char* name, device::Stream& stream,
                void** arguments) {
    device::launch(library.kernel(name, 0), {1056, 256, 1, 0}, arguments, stream.handle());
}

}  // namespace

int64_t CudaShape::total_rows() const {
    return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}
double CudaShape::flops() const {
    return 2.0 * static_cast<double>(total_rows()) * static_cast<double>(n * k);
}
double CudaShape::bytes(bool f32_out) const {
    const auto used = std::count_if(rows.begin(), rows.end(), [](int r) { return r > 0; });
    return static_cast<double>(total_rows() * k + used * n * k +
                               total_rows() * n * (f32_out ? 4 : 2));
}

CudaCase::CudaCase(device::Stream& stream, const CudaShape& shape, bool f32_out, uint64_t seed,
                   Codes codes)
    : stream_(stream), shape_(shape), library_(dsa_cuda_reference) {
    const int64_t k_blocks = ceil_div(shape.k, 128), n_blocks = ceil_div(shape.n, 128);
    const auto groups = static_cast<int64_t>(shape.rows.size());
    const bool masked = shape.groups == Groups::kMasked;
    if (masked && shape_.max_m == 0)
        shape_.max_m = ceil_div(*std::max_element(shape.rows.begin(), shape.rows.end()), 64) * 64;
    d_rows_ = masked ? groups * shape_.max_m : shape.total_rows();
    const int64_t aligned = ceil_div(masked ? shape_.max_m : d_rows_, 4) * 4;

    a_ = device::Buffer(d_rows_ * shape.k);
    b_ = device::Buffer(groups * shape.n * shape.k);
    a_scale_ = device::Buffer((masked ? groups : 1) * k_blocks * aligned * 4);
    b_scale_ = device::Buffer(groups * n_blocks * k_blocks * 4);
    d_ = device::Buffer(d_rows_ * shape.n * (f32_out ? 4 : 2));
    // [count][rows][k], scales of block_rows x 128.
    const auto random = [&](const device::Buffer& buffer, int64_t count, int64_t rows,
                            int block_rows, uint64_t offset) {
        void* p = buffer.data();
        unsigned long long s = seed * 1000003 + offset;
        if (codes == Codes::kQuantised) {
            long long g = count, m = rows, k = shape.k;
            void* arguments[] = {&p, &g, &m, &k, &block_rows, &s};
            launch_all(library_, "random_quantised", stream_, arguments);
        } else {
            long long n = buffer.size();
            float deviation = 3.0f;
            void* arguments[] = {&p, &n, &s, &deviation};
            launch_all(library_, "random_e4m3", stream_, arguments);
        }
    };
    const auto random_scales = [&](const device::Buffer& buffer, uint64_t offset) {
        void* p = buffer.data();
        long long n = buffer.size() / 4;
        unsigned long long s = seed * 1000003 + offset;
        void* arguments[] = {&p, &n, &s};
        launch_all(library_, "random_scales", stream_, arguments);
    };
    random(a_, 1, d_rows_, 1, 1);
    random(b_, groups, shape.n, 128, 1ull << 40);
    random_scales(a_scale_, 2ull << 40);
    random_scales(b_scale_, 3ull << 40);

    std::vector<int> per_group = shape.rows;
    if (shape.groups == Groups::kContiguous) {
        per_group.assign(1, 0);
        for (const int r : shape.rows) per_group.push_back(per_group.back() + r);
    }
    group_rows_ = device::Buffer(static_cast<int64_t>(per_group.size()) * 4);
    device::copy_to_device(group_rows_.data(), per_group.data(), group_rows_.size(),
                           stream_.handle());
    stream_.synchronize();

    problem_ = {{.groups = shape.groups,
                 .m = masked ? shape_.max_m : d_rows_,
                 .n = shape.n,
                 .k = shape.k,
                 .num_groups = groups,
                 .f32_out = f32_out},
                a_.data(),
                shape.k,
                a_scale_.as<float>(),
                aligned,
                b_.data(),
                b_scale_.as<float>(),
                d_.data(),
                shape.n,
                group_rows_.as<int32_t>()};
    choose_rows();
}

void CudaCase::choose_rows() {
    const bool masked = shape_.groups == Groups::kMasked;
    const auto groups = static_cast<int>(shape_.rows.size());
    const int each = std::max(2, kCheckedRows / groups);
    int before = 0;
    for (int g = 0; g < groups; ++g) {
        const int rows = shape_.rows[static_cast<size_t>(g)];
        const int first = masked ? g * static_cast<int>(shape_.max_m) : before;
        before += rows;
        const int count = std::min(rows, each);
        for (int i = 0; i < count; ++i) {  // the first and the last are among them
            const int r =
                count == 1 ? 0
                           : static_cast<int>(static_cast<int64_t>(i) * (rows - 1) / (count - 1));
            checked_rows_.push_back(first + r);
            checked_groups_.push_back(g);
            checked_cols_.push_back(masked ? r : first + r);
        }
    }
    if (checked_rows_.empty()) return;
    const auto upload = [&](device::Buffer& to, const std::vector<int>& from) {
        to = device::Buffer(static_cast<int64_t>(from.size()) * 4);
        device::copy_to_device(to.data(), from.data(), to.size(), stream_.handle());
    };
    upload(rows_, checked_rows_);
    upload(groups_, checked_groups_);
    upload(scale_cols_, checked_cols_);
    reference_ = device::Buffer(static_cast<int64_t>(checked_rows_.size()) * shape_.n * 8);
    const gemm::cuda::Problem& p = problem_;
    const void* a = p.a;
    const void* b = p.b;
    long long lda = p.lda, aligned = p.aligned_m;
    long long group_stride = masked ? ceil_div(p.k, 128) * aligned : 0;
    int n = static_cast<int>(p.n), k = static_cast<int>(p.k);
    void *rows = rows_.data(), *cols = scale_cols_.data(), *ids = groups_.data(),
         *d = reference_.data();
    const float *a_scale = p.a_scale, *b_scale = p.b_scale;
    void* arguments[] = {&a, &lda, &a_scale, &group_stride, &aligned, &b, &b_scale,
                         &n, &k,   &rows,    &cols,         &ids,     &d};
    device::launch(
        library_.kernel("reference", 0),
        {static_cast<int>(ceil_div(p.n, 256)), 256, 1, 0, static_cast<int>(checked_rows_.size())},
        arguments, stream_.handle());
    stream_.synchronize();
}

void CudaCase::run(CudaExec& exec) const {
    const gemm::cuda::Problem& p = problem_;
    const gemm::Activations a{p.a, DType::kE4M3, p.lda, p.a_scale, 1, p.aligned_m};
    const gemm::Weight b{p.b, DType::kE4M3, p.b_scale, p.n, p.k};
    const gemm::Output d{p.d, p.f32_out ? DType::kF32 : DType::kBF16, p.ldd};
    const int64_t expected = shape_.total_rows() / std::max<int64_t>(1, p.num_groups);
    if (p.groups == Groups::kDense) {
        gemm::fp8_gemm_nt(exec, {p.m, a, b, d});
    } else if (p.groups == Groups::kContiguous) {
        gemm::m_grouped_fp8_gemm_nt_contiguous(
            exec, {{p.num_groups, a, b, d, expected}, p.m, p.group_rows});
    } else {
        gemm::m_grouped_fp8_gemm_nt_masked(exec,
                                           {{p.num_groups, a, b, d, expected}, p.m, p.group_rows});
    }
}

void CudaCase::copy_operands(const CudaCase& from) {
    const auto copy = [&](const device::Buffer& to, const void* source, int64_t bytes) {
        device::copy_on_device(to.data(), source, bytes, stream_.handle());
    };
    copy(a_, from.a_.data(), a_.size());
    copy(b_, from.b_.data(), b_.size());
    copy(b_scale_, from.b_scale_.data(), b_scale_.size());
    const int64_t blocks = ceil_div(shape_.k, 128);
    for (int64_t b = 0; b < blocks; ++b)
        device::copy_on_device(a_scale_.as<float>() + b * problem_.aligned_m,
                               from.a_scale_.as<float>() + b * from.problem_.aligned_m,
                               problem_.m * 4, stream_.handle());
}

void CudaCase::poison() {
    device::fill(d_.data(), kPoison, d_.size(), stream_.handle());
}

std::vector<uint8_t> CudaCase::output() const {
    std::vector<uint8_t> bytes(static_cast<size_t>(d_.size()));
    device::copy_to_host(bytes.data(), d_.data(), d_.size(), stream_.handle());
    return bytes;
}

double CudaCase::check() {
    const std::vector<uint8_t> bytes = output();
    std::vector<double> reference(checked_rows_.size() * static_cast<size_t>(shape_.n));
    if (!reference.empty())
        device::copy_to_host(reference.data(), reference_.data(), reference_.size(),
                             stream_.handle());
    const size_t size = problem_.f32_out ? 4 : 2;
    const auto n = static_cast<size_t>(shape_.n);
    const uint8_t poison[4] = {kPoison, kPoison, kPoison, kPoison};

    std::vector<bool> owned(static_cast<size_t>(d_rows_), shape_.groups != Groups::kMasked);
    if (shape_.groups == Groups::kMasked)
        for (size_t g = 0; g < shape_.rows.size(); ++g)
            for (int r = 0; r < shape_.rows[g]; ++r)
                owned[g * static_cast<size_t>(shape_.max_m) + static_cast<size_t>(r)] = true;
    for (size_t row = 0; row < owned.size(); ++row)
        for (size_t col = 0; col < n; ++col) {
            const bool written = std::memcmp(&bytes[(row * n + col) * size], poison, size) != 0;
            if (written != owned[row])
                throw_error(ErrorCode::kInternal, "element (", row, ", ", col, ") was ",
                            written ? "written, but no group has it" : "not written");
        }
    double error = 0.0, norm = 0.0;
    for (size_t i = 0; i < checked_rows_.size(); ++i)
        for (size_t col = 0; col < n; ++col) {
            const uint8_t* p = &bytes[(static_cast<size_t>(checked_rows_[i]) * n + col) * size];
            float value = 0.0f;
            if (problem_.f32_out) {
                std::memcpy(&value, p, 4);
            } else {
                uint32_t bits = 0;
                std::memcpy(reinterpret_cast<uint8_t*>(&bits) + 2, p, 2);
                std::memcpy(&value, &bits, 4);
            }
            const double expected = reference[i * n + col];
            error += (value - expected) * (value - expected);
            norm += expected * expected;
        }
    return norm == 0.0 ? std::sqrt(error) : std::sqrt(error / norm);
}

}  // namespace dsa::testing
