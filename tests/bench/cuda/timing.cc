#include "timing.h"

#include <cuda_runtime_api.h>
#include <cupti.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace dsa::bench {
namespace {

void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

cudaStream_t handle(const device::Stream& stream) {
    return static_cast<cudaStream_t>(stream.handle());
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// Kernel times since the last look, in order. CUPTI's callbacks know no user data.
std::vector<double> kernel_us;
decltype(&cuptiActivityGetNextRecord) next_record = nullptr;

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* max_records) {
    *size = size_t{1} << 20;
    *buffer = static_cast<uint8_t*>(std::aligned_alloc(64, *size));
    *max_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
    CUpti_Activity* record = nullptr;
    while (next_record(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
        const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
        kernel_us.push_back(static_cast<double>(kernel->end - kernel->start) * 1e-3);
    }
    std::free(buffer);
}

}  // namespace

struct ColdTimer::Cupti {
    decltype(&cuptiActivityEnable) enable;
    decltype(&cuptiActivityDisable) disable;
    decltype(&cuptiActivityFlushAll) flush;
    decltype(&cuptiActivityRegisterCallbacks) register_callbacks;
};

ColdTimer::ColdTimer(device::Stream& stream, std::function<void()> overwrite)
    : stream_(stream), overwrite_(std::move(overwrite)) {
    void* library = device::open_toolkit_library("libcupti.so", "DSA_CUPTI");
    if (library == nullptr) return;
    auto* cupti = new Cupti;
    const auto find = [&](auto& function, const char* name) {
        return device::find_function(library, name, function);
    };
    if (find(cupti->enable, "cuptiActivityEnable") &&
        find(cupti->disable, "cuptiActivityDisable") &&
        find(cupti->flush, "cuptiActivityFlushAll") &&
        find(cupti->register_callbacks, "cuptiActivityRegisterCallbacks") &&
        find(next_record, "cuptiActivityGetNextRecord") &&
        cupti->register_callbacks(give_buffer, take_buffer) == CUPTI_SUCCESS &&
        cupti->enable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) == CUPTI_SUCCESS) {
        cupti_ = cupti;
    } else {
        delete cupti;
    }
}

ColdTimer::~ColdTimer() {
    if (cupti_ == nullptr) return;
    cupti_->disable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    delete cupti_;
}

double ColdTimer::median_us(const std::function<void()>& call, int repeats) {
    call();
    stream_.synchronize();
    std::vector<double> times;
    if (cupti_ != nullptr) {
        for (int i = 0; i < repeats; ++i) {
            overwrite_();
            stream_.synchronize();
            cupti_->flush(1);
            kernel_us.clear();
            call();
            stream_.synchronize();
            cupti_->flush(1);
            double sum = 0.0;
            for (const double us : kernel_us) sum += us;
            times.push_back(sum);
        }
        return median(times);
    }
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "cudaEventCreate");
    check(cudaEventCreate(&end), "cudaEventCreate");
    for (int i = 0; i < repeats; ++i) {
        overwrite_();
        check(cudaEventRecord(begin, handle(stream_)), "cudaEventRecord");
        call();
        check(cudaEventRecord(end, handle(stream_)), "cudaEventRecord");
        stream_.synchronize();
        float ms = 0.0f;
        check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
        times.push_back(ms * 1e3);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return median(times);
}

double graph_us(device::Stream& stream, const std::function<void()>& call, int calls) {
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    check(cudaStreamBeginCapture(handle(stream), cudaStreamCaptureModeThreadLocal),
          "cudaStreamBeginCapture");
    for (int i = 0; i < calls; ++i) call();
    check(cudaStreamEndCapture(handle(stream), &graph), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "cudaEventCreate");
    check(cudaEventCreate(&end), "cudaEventCreate");
    std::vector<double> times;
    for (int i = 0; i < 4; ++i) {
        check(cudaEventRecord(begin, handle(stream)), "cudaEventRecord");
        check(cudaGraphLaunch(replay, handle(stream)), "cudaGraphLaunch");
        check(cudaEventRecord(end, handle(stream)), "cudaEventRecord");
        stream.synchronize();
        float ms = 0.0f;
        check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
        if (i > 0) times.push_back(ms * 1e3 / calls);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
    return median(times);
}

}  // namespace dsa::bench
