// Matrices as GGUF files hold them, dequantized into a strided bf16 matrix.
//
// The source is a tensor's bytes as they stand in the file: rows * cols weights in row order, cut along the columns
// into ggml's blocks of 32 or 256 (f16 and bf16: any multiple of 8 columns). Bit layouts: ggml-quants.
// Each operation is rounded to f32 as in gguf-py's dequantize, the result then to bf16.
//
// Launch, FORMAT one of q4_0 q4_1 q5_0 q5_1 q8_0 q4_k q5_k q6_k f16 bf16:
//   gguf_dequantize_FORMAT(const u8 *from, bf16 *out, u32 rows, u32 cols, u64 ld, u32 heads)
//                                                                          ceil(rows * cols / 8192) x 256
// from and out are 16-byte aligned. ld, out's row stride in elements, is a multiple of 8 and at least cols; what lies
// between rows is left alone. heads = 0 keeps the rows' order; otherwise they are a q or k projection of so many
// heads in llama.cpp's order (the two halves of a head interleaved) and come out in Hugging Face's.
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t GROUP = 8;     // weights a thread decodes at a time: 16 bytes of bf16
constexpr uint32_t TILE = 8192;   // weights a CTA decodes; their bytes are a multiple of 16 in every format

__device__ __forceinline__ uint32_t u16(const uint8_t *at) { return *reinterpret_cast<const uint16_t *>(at); }
__device__ __forceinline__ float half(const uint8_t *at) { return __half2float(*reinterpret_cast<const __half *>(at)); }

// Eight bytes; ALIGN is what their address is a multiple of.
template <int ALIGN> __device__ __forceinline__ uint2 bytes8(const uint8_t *at) {
    if constexpr (ALIGN == 8)
        return *reinterpret_cast<const uint2 *>(at);
    if constexpr (ALIGN == 4)
        return {reinterpret_cast<const uint32_t *>(at)[0], reinterpret_cast<const uint32_t *>(at)[1]};
    return {u16(at) | u16(at + 2) << 16, u16(at + 4) | u16(at + 6) << 16};
}

__device__ __forceinline__ uint32_t byte(uint2 v, int i) { return (i < 4 ? v.x : v.y) >> (i % 4 * 8) & 255; }

// A format: WEIGHTS and BYTES of a block, and decode(block, first, x), eight weights from `first`, a multiple of 8.

// q4_0, q4_1, q5_0, q5_1: d [, m] [, the fifth bits] and nibbles, the first 16 weights in the low ones.
template <bool MIN, bool FIFTH> struct Q32 {
    static constexpr uint32_t WEIGHTS = 32, BYTES = 2 + 2 * MIN + 4 * FIFTH + 16;
    static __device__ __forceinline__ void decode(const uint8_t *block, uint32_t first, float (&x)[8]) {
        const uint8_t *bits = block + 2 + 2 * MIN;
        const uint2 nibbles = bytes8<(BYTES % 4 ? 2 : 4)>(bits + 4 * FIFTH + first % 16);
        const uint32_t shift = first / 16 * 4;
        const uint32_t fifth = FIFTH ? (u16(bits) | u16(bits + 2) << 16) >> first : 0;
        const float d = half(block), m = MIN ? half(block + 2) : 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int q = int((byte(nibbles, i) >> shift & 15) | (fifth >> i & 1) << 4);
            x[i] = MIN ? __fadd_rn(__fmul_rn(d, float(q)), m) : __fmul_rn(d, float(q - (FIFTH ? 16 : 8)));
        }
    }
};

struct Q8_0 {
    static constexpr uint32_t WEIGHTS = 32, BYTES = 34;
    static __device__ __forceinline__ void decode(const uint8_t *block, uint32_t first, float (&x)[8]) {
        const uint2 q = bytes8<2>(block + 2 + first);
        const float d = half(block);
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = __fmul_rn(float(int8_t(byte(q, i))), d);
    }
};

// q4_k, q5_k: d, dmin, 12 bytes with eight 6-bit scales and minima, [32 bytes with a bit a sub-block,] nibbles.
template <bool FIFTH> struct QK {
    static constexpr uint32_t WEIGHTS = 256, BYTES = 16 + 32 * FIFTH + 128;
    static __device__ __forceinline__ void decode(const uint8_t *block, uint32_t first, float (&x)[8]) {
        const uint32_t sub = first / 32, in = first % 32;
        const uint8_t *s = block + 4;
        uint32_t scale, min;
        if (sub < 4) {
            scale = s[sub] & 63u;
            min = s[sub + 4] & 63u;
        } else {
            scale = (s[sub + 4] & 15u) | (s[sub - 4] >> 6) << 4;
            min = uint32_t(s[sub + 4] >> 4) | (s[sub] >> 6) << 4;
        }
        const float d = __fmul_rn(half(block), float(scale)), m = __fmul_rn(half(block + 2), float(min));
        const uint2 nibbles = bytes8<8>(block + 16 + 32 * FIFTH + sub / 2 * 32 + in);
        const uint2 fifths = FIFTH ? bytes8<8>(block + 16 + in) : uint2{0, 0};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t q = (byte(nibbles, i) >> (sub % 2 * 4) & 15) | (byte(fifths, i) >> sub & 1) << 4;
            x[i] = __fsub_rn(__fmul_rn(d, float(int(q))), m);
        }
    }
};

// Low nibbles [128], high pairs of bits [64], 16 signed scales, d. A half of 128 weights has 64 + 32 of these bytes:
// its quarters lie in the low nibbles of the first and second 32 bytes, then in the high ones.
struct Q6_K {
    static constexpr uint32_t WEIGHTS = 256, BYTES = 210;
    static __device__ __forceinline__ void decode(const uint8_t *block, uint32_t first, float (&x)[8]) {
        const uint32_t half_at = first / 128, quarter = first % 128 / 32, in = first % 32;
        const uint2 low = bytes8<2>(block + half_at * 64 + quarter % 2 * 32 + in);
        const uint2 high = bytes8<2>(block + 128 + half_at * 32 + in);
        const float d = __fmul_rn(half(block + 208), float(int8_t(block[192 + first / 16])));
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t q = (byte(low, i) >> (quarter / 2 * 4) & 15) | (byte(high, i) >> (quarter * 2) & 3) << 4;
            x[i] = __fmul_rn(d, float(int(q) - 32));
        }
    }
};

struct F16 {
    static constexpr uint32_t WEIGHTS = 8, BYTES = 16;
    static __device__ __forceinline__ void decode(const uint8_t *block, uint32_t, float (&x)[8]) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = half(block + 2 * i);
    }
};

struct BF16 {
    static constexpr uint32_t WEIGHTS = 8, BYTES = 16;
    static __device__ __forceinline__ void decode(const uint8_t *block, uint32_t, float (&x)[8]) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = __uint_as_float(u16(block + 2 * i) << 16);
    }
};

__device__ __forceinline__ uint32_t pack2(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

template <typename Q>
__device__ __forceinline__ void dequantize(const uint8_t *from, __nv_bfloat16 *out, uint32_t rows, uint32_t cols,
                                           uint64_t ld, uint32_t heads) {
    // Blocks of 18 or 34 bytes are no size to load a thread each: the CTA's bytes come in whole, 16 at a time.
    constexpr uint32_t SPAN = TILE / Q::WEIGHTS * Q::BYTES;
    static_assert(SPAN % 16 == 0, "a tile starts 16-byte aligned");
    __shared__ uint4 tile[SPAN / 16];
    uint8_t *const here = reinterpret_cast<uint8_t *>(tile);
    const uint32_t t = threadIdx.x;
    const uint32_t row_groups = cols / GROUP;
    const uint64_t groups = uint64_t(rows) * row_groups;
    const uint64_t total = groups * GROUP / Q::WEIGHTS * Q::BYTES;
    const uint64_t start = uint64_t(blockIdx.x) * SPAN;
    const uint32_t span = total - start < SPAN ? uint32_t(total - start) : SPAN;
#pragma unroll
    for (uint32_t i = 0; i < (SPAN / 16 + THREADS - 1) / THREADS; i++) {
        const uint32_t at = i * THREADS + t;
        if (at < span / 16)
            tile[at] = __ldcs(reinterpret_cast<const uint4 *>(from + start) + at);
    }
    if (t < span % 16)
        here[span / 16 * 16 + t] = from[start + span / 16 * 16 + t];
    __syncthreads();

#pragma unroll
    for (uint32_t k = 0; k < TILE / GROUP / THREADS; k++) {
        const uint32_t local = k * THREADS + t;
        const uint64_t group = uint64_t(blockIdx.x) * (TILE / GROUP) + local;
        if (group >= groups)
            break;
        float x[8];
        Q::decode(here + local * GROUP / Q::WEIGHTS * Q::BYTES, local * GROUP % Q::WEIGHTS, x);
        uint32_t row = uint32_t(group) / row_groups; // groups stay below 2^32: 34 billion weights
        const uint32_t col = uint32_t(group) - row * row_groups;
        if (heads) {
            const uint32_t size = rows / heads, in = row % size;
            row += in / 2 + in % 2 * (size / 2) - in;
        }
        *reinterpret_cast<uint4 *>(out + row * ld + uint64_t(col) * GROUP) =
            make_uint4(pack2(x[0], x[1]), pack2(x[2], x[3]), pack2(x[4], x[5]), pack2(x[6], x[7]));
    }
}

} // namespace

#define KERNEL(name, ...)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        gguf_dequantize_##name(const uint8_t *from, __nv_bfloat16 *out, uint32_t rows, uint32_t cols, uint64_t ld,    \
                               uint32_t heads) {                                                                       \
        dequantize<__VA_ARGS__>(from, out, rows, cols, ld, heads);                                                     \
    }

KERNEL(q4_0, Q32<false, false>)
KERNEL(q4_1, Q32<true, false>)
KERNEL(q5_0, Q32<false, true>)
KERNEL(q5_1, Q32<true, true>)
KERNEL(q8_0, Q8_0)
KERNEL(q4_k, QK<false>)
KERNEL(q5_k, QK<true>)
KERNEL(q6_k, Q6_K)
KERNEL(f16, F16)
KERNEL(bf16, BF16)
