// The 8-bit code search that NF4's double quantization and 8-bit AdamW share.
//
// A code is 256 ascending f32 values. `mids` holds the 255 midpoints of its neighbours; a number takes the
// value it is nearest to, the lower one on a tie: the count of midpoints below it.
#pragma once
#include <cstdint>

__device__ __forceinline__ float midpoint(float low, float high) { return __fmul_rn(__fadd_rn(low, high), 0.5f); }

// Index of the code value nearest to x; 0 for NaN.
__device__ __forceinline__ uint32_t nearest(const float *mids, float x) {
    uint32_t at = 0;
#pragma unroll
    for (uint32_t step = 128; step > 0; step >>= 1)
        at += x > mids[at + step - 1] ? step : 0;
    return at;
}

// 1 / max|x|, and 0 · (1 / 1e-38) = 0 for a block of zeros.
__device__ __forceinline__ float reciprocal(float absmax) { return __fdiv_rn(1.0f, fmaxf(absmax, 1e-38f)); }
