// Runs a CUDA kernel on the CPU, so that its arithmetic and indexing are checked where no card is.
//
// A CTA's threads are fibers of one thread: each runs until a barrier or a shuffle and then gives way. Only what the
// kernels of src/ops/kernels use is here. It shows wrong results, not races and not speed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)

struct uint3_host { unsigned x, y, z; };
inline uint3_host threadIdx, blockIdx, blockDim, gridDim;
struct uchar4 { uint8_t x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace host {
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
};
inline ucontext_t scheduler;
inline std::vector<Fiber> fibers;
inline unsigned current;
inline void (*body)(void *);
inline void *argument;
inline uint32_t exchange[2][1024];
inline void give_way() { swapcontext(&fibers[current].context, &scheduler); }
inline void start() {
    body(argument);
    fibers[current].done = true;
    give_way();
}
} // namespace host

// Fibers take turns in order, so one turn of all of them is a barrier for warps and for the CTA.
inline void __syncthreads() { host::give_way(); }
inline float __shfl_xor_sync(uint32_t, float v, uint32_t lane) {
    // Two turns: all write, all read. A fast fiber's next write must not pass a slow one's read.
    memcpy(&host::exchange[0][threadIdx.x], &v, 4);
    host::give_way();
    float r;
    memcpy(&r, &host::exchange[0][threadIdx.x ^ lane], 4);
    host::give_way();
    return r;
}

template <typename T> T __ldcs(const T *p) { return *p; }
template <typename T> T __ldg(const T *p) { return *p; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __uint_as_float(uint32_t v) { float f; memcpy(&f, &v, 4); return f; }
inline uint32_t __float_as_uint(float f) { uint32_t v; memcpy(&v, &f, 4); return v; }
using std::isfinite;

namespace host {
template <typename... A, size_t... I>
void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A> *>(args[I])...);
}
// args as cuLaunchKernel takes them.
template <typename... A> void launch(void (*kernel)(A...), unsigned grid, unsigned grid_y, unsigned block, void **args) {
    struct Bound { void (*kernel)(A...); void **args; } bound = {kernel, args};
    body = [](void *p) {
        Bound *b = static_cast<Bound *>(p);
        call(b->kernel, b->args, std::index_sequence_for<A...>());
    };
    argument = &bound;
    gridDim = {grid, grid_y, 1}, blockDim = {block, 1, 1};
    fibers.resize(block);
    for (unsigned cta = 0; cta < grid * grid_y; cta++) {
        blockIdx = {cta % grid, cta / grid, 0};
        for (Fiber &f : fibers) {
            f.done = false;
            if (f.stack.empty())
                f.stack.resize(64 << 10);
            getcontext(&f.context);
            f.context.uc_stack = {f.stack.data(), 0, f.stack.size()};
            f.context.uc_link = nullptr;
            makecontext(&f.context, start, 0);
        }
        for (bool running = true; running;) {
            running = false;
            for (unsigned t = 0; t < block; t++) {
                if (fibers[t].done)
                    continue;
                current = t;
                threadIdx = {t, 0, 0};
                swapcontext(&scheduler, &fibers[t].context);
                running = running || !fibers[t].done;
            }
        }
    }
}
} // namespace host

#define HOST_KERNEL(name)                                                                                             \
    extern "C" void run_##name(unsigned grid, unsigned grid_y, unsigned block, void **args) {                          \
        host::launch(name, grid, grid_y, block, args);                                                                \
    }
