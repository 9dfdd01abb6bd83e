// Activations made ready for the products.

namespace {

constexpr int kBlock = 128;

// As block_scale of gemm/quantize.h.
__device__ float block_scale(float absmax, bool ue8m0) {
    const float a = fmaxf(absmax, 1e-4f);
    if (!ue8m0) return __fdiv_rn(a, 448.0f);
    const unsigned bits = __float_as_uint(a * (1.0f / 448.0f));
    return __uint_as_float((bits + 0x7fffffu) & 0xff800000u);
}

}  // namespace

// bf16 [m, k], row stride ldx, to e4m3 [m, k] and scales [ceil(k / 128)][aligned_m]. A warp takes a
// block of a row.
extern "C" __global__ void quantize_1x128(const unsigned short* x, long long ldx, int m, int k,
                                          int ue8m0, unsigned char* q, float* scale,
                                          int aligned_m) {
    const int blocks = (k + kBlock - 1) / kBlock, lane = threadIdx.x % 32;
    const long long tasks = static_cast<long long>(m) * blocks,
                    warps = static_cast<long long>(gridDim.x) * blockDim.x / 32;
    for (long long task = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) / 32;
         task < tasks; task += warps) {
        const int row = static_cast<int>(task / blocks), block = static_cast<int>(task % blocks);
        float v[4], absmax = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int col = block * kBlock + lane + 32 * i;
            v[i] =
                col < k ? __uint_as_float(static_cast<unsigned>(x[row * ldx + col]) << 16) : 0.0f;
            absmax = fmaxf(absmax, fabsf(v[i]));  // of NaN and a number: the number
        }
#pragma unroll
        for (int d = 16; d > 0; d /= 2)
            absmax = fmaxf(absmax, __shfl_xor_sync(0xffffffffu, absmax, d));
        const float s = block_scale(absmax, ue8m0 != 0);
        if (lane == 0) scale[static_cast<long long>(block) * aligned_m + row] = s;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int col = block * kBlock + lane + 32 * i;
            if (col >= k) continue;
            unsigned short packed;
            asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;"
                : "=h"(packed)
                : "f"(0.0f), "f"(__fdiv_rn(v[i], s)));
            q[static_cast<long long>(row) * k + col] = static_cast<unsigned char>(packed);
        }
    }
}

// Scales [groups][rows, blocks] with strides to [groups][blocks][aligned].
extern "C" __global__ void transpose_scales(const float* from, long long stride_m,
                                            long long stride_k, int groups, int rows, int blocks,
                                            float* to, int aligned) {
    const long long n = static_cast<long long>(groups) * rows * blocks;
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<long long>(gridDim.x) * blockDim.x) {
        const int row = static_cast<int>(i % rows);
        const long long j = i / rows;
        const int block = static_cast<int>(j % blocks);
        const long long group = j / blocks;
        to[(group * blocks + block) * aligned + row] =
            from[(group * rows + row) * stride_m + block * stride_k];
    }
}
