// f16 as cuda_fp16.h has it, for kernels that run on the CPU.
#pragma once
#include "cuda_on_host.h"

struct __half_raw { uint16_t x; };
struct __half {
    uint16_t bits;
    __half() = default;
    __half(__half_raw r) : bits(r.x) {}
};
inline float __half2float(__half h) {
    const int exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
    const float sign = h.bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31)
        return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp(float(fraction), -24));
}
