// Random operands and products in double precision on the device, for checks of the CUDA kernels.

namespace {

__device__ unsigned hash(unsigned long long x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    x ^= x >> 33;
    return static_cast<unsigned>(x);
}

__device__ double value_of(unsigned char code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    if ((code & 0x7f) == 0x7f) return nan("");
    const double magnitude =
        exponent == 0 ? mantissa / 512.0 : ldexp(8.0 + mantissa, exponent - 10);
    return code & 0x80 ? -magnitude : magnitude;
}

// Normally distributed, the same for the same seed and i.
__device__ inline float normal(unsigned long long seed, long long i) {
    const unsigned h = hash(seed + 2 * i), g = hash(seed + 2 * i + 1);
    const float u = (h + 1.0f) * 2.3283064e-10f, v = g * 2.3283064e-10f;
    return sqrtf(-2.0f * logf(fminf(u, 1.0f))) * cospif(2.0f * v);
}

__device__ inline unsigned char to_e4m3(float x) {
    unsigned short packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(0.0f), "f"(x));
    return static_cast<unsigned char>(packed);
}

}  // namespace

// e4m3 codes of normally distributed values with the given deviation, no NaN.
extern "C" __global__ void random_e4m3(unsigned char* p, long long n, unsigned long long seed,
                                       float deviation) {
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<long long>(gridDim.x) * blockDim.x)
        p[i] = to_e4m3(normal(seed, i) * deviation);
}

// e4m3 codes as a quantiser makes them of normally distributed values: in [groups][rows][k] the
// largest magnitude of each block of block_rows x 128 is 448. One block of threads each.
extern "C" __global__ void random_quantised(unsigned char* p, long long groups, long long rows,
                                            long long k, int block_rows, unsigned long long seed) {
    __shared__ int largest;  // a float's bits: they order as the magnitudes do
    const long long blocks_m = (rows + block_rows - 1) / block_rows, blocks_k = (k + 127) / 128;
    for (long long b = blockIdx.x; b < groups * blocks_m * blocks_k; b += gridDim.x) {
        const long long group = b / (blocks_m * blocks_k), kb = b % blocks_k;
        const long long row0 = b / blocks_k % blocks_m * block_rows;
        const auto for_each = [&](const auto& f) {
            for (int j = threadIdx.x; j < block_rows * 128; j += blockDim.x) {
                const long long row = row0 + j / 128, col = kb * 128 + j % 128;
                if (row < rows && col < k) f((group * rows + row) * k + col);
            }
        };
        if (threadIdx.x == 0) largest = 0;
        __syncthreads();
        for_each([&](long long i) { atomicMax(&largest, __float_as_int(fabsf(normal(seed, i)))); });
        __syncthreads();
        const float scale = 448.0f / __int_as_float(largest);
        for_each([&](long long i) { p[i] = to_e4m3(normal(seed, i) * scale); });
        __syncthreads();
    }
}

// Scales in [0.5, 2) / 64.
extern "C" __global__ void random_scales(float* p, long long n, unsigned long long seed) {
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<long long>(gridDim.x) * blockDim.x)
        p[i] = exp2f(hash(seed + i) * 2.3283064e-10f * 2.0f - 1.0f) / 64.0f;
}

// d[i, col] = A[rows[i]] B[groups[i]]^T, one thread an element.
extern "C" __global__ void reference(const unsigned char* a, long long lda, const float* a_scale,
                                     long long a_group_stride, long long aligned_m,
                                     const unsigned char* b, const float* b_scale, int n, int k,
                                     const int* rows, const int* scale_cols, const int* groups,
                                     double* d) {
    __shared__ double values[256];
    values[threadIdx.x] = value_of(static_cast<unsigned char>(threadIdx.x));
    __syncthreads();
    const int col = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
    if (col >= n) return;
    const int k_blocks = (k + 127) / 128, n_blocks = (n + 127) / 128;
    const long long group = groups[i];
    const unsigned char* x = a + rows[i] * lda;
    const unsigned char* y = b + (group * n + col) * k;
    double sum = 0.0;
    for (int kb = 0; kb < k_blocks; ++kb) {
        double part = 0.0;
        for (int j = kb * 128; j < min(k, kb * 128 + 128); ++j) part += values[x[j]] * values[y[j]];
        sum += part * a_scale[group * a_group_stride + kb * aligned_m + scale_cols[i]] *
               b_scale[(group * n_blocks + col / 128) * k_blocks + kb];
    }
    d[static_cast<long long>(i) * n + col] = sum;
}

// Overwrites L2 and more.
extern "C" __global__ void overwrite(uint4* p, long long n) {
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<long long>(gridDim.x) * blockDim.x)
        p[i] = make_uint4(1, 2, 3, static_cast<unsigned>(i));
}

// Reads as much: L2 then holds nothing that is to be written back.
extern "C" __global__ void read_all(uint4* p, long long n) {
    unsigned all = 0;
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<long long>(gridDim.x) * blockDim.x) {
        const uint4 v = p[i];
        all += v.x ^ v.y ^ v.z ^ v.w;
    }
    if (all == 0x7fffffff) p[0].x = all;  // or the compiler would leave the loop out
}

extern "C" __global__ void copy(uint4* to, const uint4* from, long long n) {
    for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<long long>(gridDim.x) * blockDim.x)
        to[i] = from[i];
}
