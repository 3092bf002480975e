// bf16 as cuda_bf16.h has it, for kernels that run on the CPU.
#pragma once
#include "cuda_on_host.h"

struct __nv_bfloat16 { uint16_t bits; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };

inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    const uint32_t v = __float_as_uint(f);
    if (std::isnan(f))
        return {0x7fff};
    return {uint16_t((v + 0x7fff + (v >> 16 & 1)) >> 16)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return {__float2bfloat16_rn(a), __float2bfloat16_rn(b)};
}
