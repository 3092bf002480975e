// NF4 weights as bitsandbytes stores them: quantize on the card, dequantize into a strided bf16 matrix.
//
// A matrix [rows, cols], cols a multiple of 64, is taken flat in row order and cut into blocks of 64 weights.
//   packed   u8[n/2]              two codes a byte, the first in the high nibble
//   absmax   u8[n/64]             double quantization: the code of (block's max|w| - offset) / nested
//   nested   f32[ceil(n/64/256)]  max|absmax - offset| of 256 blocks
//   offset   f32[1]               mean of the blocks' max|w|
//   code     f32[256]             bitsandbytes' signed dynamic map (create_dynamic_map(signed=True))
// Every pointer is to device memory; packed is 4-byte aligned, w and out are 16-byte aligned.
// A weight is NF4[code] * (code8[absmax] * nested + offset), each operation rounded to f32, then rounded to bf16.
//
// Launch:
//   nf4_quantize_bf16(const bf16 *w, u64 n, u8 *packed, f32 *max)                  ceil(n / 2048) x 256
//   nf4_quantize_f32 (const f32 *w, u64 n, u8 *packed, f32 *max)                   ceil(n / 2048) x 256
//   nf4_mean(const f32 *max, u64 blocks, f32 *offset)                              1 x 1024
//   nf4_quantize_absmax(const f32 *max, u64 blocks, const f32 *offset,
//                       const f32 *code, u8 *absmax, f32 *nested)                  ceil(blocks / 256) x 256
//   nf4_dequantize_bf16(const u8 *packed, const void *absmax, const f32 *nested, const f32 *offset,
//                       const f32 *code, bf16 *out, u32 rows, u32 cols, u64 ld)    ceil(rows * cols / 8192) x 256
// nf4_dequantize_bf16 runs right on any grid. With nested = null it takes absmax as f32[n/64], not quantized again.
// ld, out's row stride in elements, is a multiple of 8 and at least cols; what lies between rows is left alone.
#include "quant8.cuh"
#include <cuda_bf16.h>

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t GROUP = 8;                     // weights a thread holds at a time: 16 bytes of bf16
constexpr uint32_t ROUNDS = 4;                    // groups a thread dequantizes
constexpr uint32_t LANES = 64 / GROUP;            // threads that share a block of 64
constexpr uint32_t TILE = THREADS * ROUNDS;       // groups a CTA dequantizes
constexpr uint32_t BLOCKS = TILE * GROUP / 64;    // 128
static_assert(BLOCKS <= THREADS && 256 % BLOCKS == 0, "a thread takes one block's absmax, a CTA one nested scale");

// The normal distribution's quantiles of QLoRA (Dettmers et al. 2023, appendix E), and the midpoints between them.
__device__ const float NF4[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                  -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                  0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                                  0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                                  0.7229568362236023f, 1.0f};

__device__ __forceinline__ uint32_t nf4_code(float x) {
    constexpr float mids[15] = {-0.8480963706970215f, -0.6106328964233398f, -0.4599952697753906f,
                                -0.33967941999435425f, -0.23460739850997925f, -0.13791173696517944f,
                                -0.045525018125772476f, 0.03979014977812767f, 0.120255246758461f,
                                0.2035212516784668f, 0.2920137643814087f, 0.3893125355243683f,
                                0.5016634464263916f, 0.6427869200706482f, 0.8614784479141235f};
    uint32_t code = 0;
#pragma unroll
    for (float mid : mids)
        code += x > mid;
    return code;
}

__device__ __forceinline__ void load8(const __nv_bfloat16 *from, float (&x)[8]) {
    const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(from));
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(words[i] << 16);
        x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

__device__ __forceinline__ void load8(const float *from, float (&x)[8]) {
    const float4 a = __ldcs(reinterpret_cast<const float4 *>(from));
    const float4 b = __ldcs(reinterpret_cast<const float4 *>(from) + 1);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

template <typename T>
__device__ __forceinline__ void quantize(const T *w, uint64_t n, uint8_t *packed, float *max) {
    const uint64_t group = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    const bool inside = group * GROUP < n;
    float x[GROUP] = {};
    if (inside)
        load8(w + group * GROUP, x);
    float top = 0.0f;
#pragma unroll
    for (float v : x)
        top = fmaxf(top, fabsf(v));
#pragma unroll
    for (uint32_t lane = LANES / 2; lane > 0; lane /= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, lane));
    if (!inside)
        return;
    const float scale = reciprocal(top);
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) // byte i/2, high nibble first
        word |= nf4_code(__fmul_rn(x[i], scale)) << (i / 2 * 8 + (i % 2 ? 0 : 4));
    reinterpret_cast<uint32_t *>(packed)[group] = word;
    if (group % LANES == 0)
        max[group / LANES] = top;
}

__device__ __forceinline__ uint32_t pack2(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    nf4_quantize_bf16(const __nv_bfloat16 *w, uint64_t n, uint8_t *packed, float *max) {
    quantize(w, n, packed, max);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    nf4_quantize_f32(const float *w, uint64_t n, uint8_t *packed, float *max) {
    quantize(w, n, packed, max);
}

// The f64 sum in a fixed order, so that a matrix has one offset.
extern "C" __global__ void __launch_bounds__(1024) nf4_mean(const float *max, uint64_t blocks, float *offset) {
    __shared__ double sums[1024];
    double sum = 0.0;
    for (uint64_t i = threadIdx.x; i < blocks; i += 1024)
        sum += double(max[i]);
    sums[threadIdx.x] = sum;
    for (uint32_t half = 512; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        *offset = float(sums[0] / double(blocks));
}

extern "C" __global__ void __launch_bounds__(THREADS)
    nf4_quantize_absmax(const float *max, uint64_t blocks, const float *offset, const float *code, uint8_t *absmax,
                        float *nested) {
    __shared__ float mids[255];
    __shared__ float tops[THREADS / 32];
    const uint32_t t = threadIdx.x;
    if (t < 255)
        mids[t] = midpoint(code[t], code[t + 1]);
    const uint64_t i = uint64_t(blockIdx.x) * THREADS + t;
    const float x = i < blocks ? __fsub_rn(max[i], *offset) : 0.0f;
    float top = fabsf(x);
#pragma unroll
    for (uint32_t lane = 16; lane > 0; lane /= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, lane));
    if (t % 32 == 0)
        tops[t / 32] = top;
    __syncthreads();
#pragma unroll
    for (float other : tops)
        top = fmaxf(top, other);
    if (i < blocks)
        absmax[i] = uint8_t(nearest(mids, __fmul_rn(x, reciprocal(top))));
    if (t == 0)
        nested[blockIdx.x] = top;
}

// A CTA writes 128 blocks of 64 weights at a time. Threads side by side write 16 bytes each, side by side.
extern "C" __global__ void __launch_bounds__(THREADS, 8)
    nf4_dequantize_bf16(const uint8_t *packed, const void *absmax, const float *nested, const float *offset,
                        const float *code, __nv_bfloat16 *out, uint32_t rows, uint32_t cols, uint64_t ld) {
    __shared__ float values[16];
    __shared__ float scales[BLOCKS];
    const uint32_t t = threadIdx.x;
    const uint32_t row_groups = cols / GROUP;
    const uint64_t groups = uint64_t(rows) * row_groups;
    if (t < 16)
        values[t] = NF4[t];
    for (uint64_t tile = blockIdx.x; tile * TILE < groups; tile += gridDim.x) {
        // All reads go out before anything waits.
        uint32_t words[ROUNDS];
#pragma unroll
        for (uint32_t k = 0; k < ROUNDS; k++) {
            const uint64_t group = tile * TILE + k * THREADS + t;
            words[k] = group < groups ? __ldcs(reinterpret_cast<const uint32_t *>(packed) + group) : 0;
        }
        const uint64_t block = tile * BLOCKS + t;
        if (t < BLOCKS && block * LANES < groups)
            scales[t] = nested ? __fadd_rn(__fmul_rn(code[static_cast<const uint8_t *>(absmax)[block]],
                                                     nested[block / 256]), *offset)
                               : static_cast<const float *>(absmax)[block];
        __syncthreads();
#pragma unroll
        for (uint32_t k = 0; k < ROUNDS; k++) {
            const uint64_t group = tile * TILE + k * THREADS + t;
            if (group < groups) {
                const uint32_t row = uint32_t(group) / row_groups; // groups stay below 2^32: 34 billion weights
                const uint32_t col = uint32_t(group) - row * row_groups;
                const float scale = scales[t / LANES + k * (THREADS / LANES)];
                uint32_t pairs[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const uint32_t byte = words[k] >> (8 * i);
                    pairs[i] = pack2(__fmul_rn(values[(byte >> 4) & 15], scale), __fmul_rn(values[byte & 15], scale));
                }
                *reinterpret_cast<uint4 *>(out + row * ld + uint64_t(col) * GROUP) =
                    make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            }
        }
        __syncthreads(); // scales is read
    }
}
