// AdamW over the flat f32 arena of trainables, and the norm that clips it, without the host in between.
//
// The arithmetic is ops/adamw.rs's, operation by operation and without fused multiply-add, so that both give the
// same bits: torch.optim.AdamW with decoupled decay. Clipping is torch.nn.utils.clip_grad_norm_'s.
//
// Launch:
//   l2_partials(const f32 *x, u64 n, f64 *partials)             G x 256, any G; partials holds G
//   l2_finish(const f64 *partials, u32 count, f64 *norm_sq)     1 x 256; the *square* of the norm
//   adamw(Step)                                                 any grid x 256, fastest with ceil(n / 1024)
//   adamw_8bit(Step8)                                           any grid x 256, fastest with 4 an SM
// x, values, grads, m and v are 16-byte aligned (8-bit m and v: 4-byte). For one G a norm has one value, to the bit.
#include "quant8.cuh"

// The twin of a #[repr(C)] struct: this order, these types. Factors are f64 arithmetic rounded once, as in adamw.rs.
struct Step {
    float *values;
    float *grads;
    void *m;              // f32[n]; 8-bit: u8[n]
    void *v;              // f32[n]; 8-bit: u8[n]
    uint64_t n;
    const uint64_t *decay; // [start, end) pairs under weight decay, in order and apart
    const double *norm_sq; // the gradients' squared norm; null: neither clip nor look
    const void *loss;      // f32 or, with LOSS_F64, f64; null: do not look
    double max_norm;       // at most 0: no clipping
    float keep;            // 1 - lr * weight_decay
    float new1;            // 1 - beta1
    float beta2;
    float new2;            // 1 - beta2
    float rate;            // lr / (1 - beta1^t)
    float root;            // sqrt(1 - beta2^t)
    float eps;
    uint32_t ranges;       // pairs in decay
    uint32_t flags;        // ZERO_GRADS | LOSS_F64
    uint32_t reserved;     // 0
};

// Step, then what the 8-bit state adds. Blocks of 256 of the arena, as bitsandbytes' blockwise optimizers keep them.
struct Step8 {
    Step step;
    const float *code_m; // f32[256], create_dynamic_map(signed=True)
    const float *code_v; // f32[256], create_dynamic_map(signed=False)
    float *absmax_m;     // f32[ceil(n/256)]
    float *absmax_v;     // f32[ceil(n/256)]
};

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t ZERO_GRADS = 1; // leave gradients 0, also when the step is left out
constexpr uint32_t LOSS_F64 = 2;

// What every thread of a CTA needs to know before it starts; all threads call this.
struct Clip {
    float factor;
    bool finite;
};

__device__ __forceinline__ Clip clip(const Step &s) {
    __shared__ Clip shared;
    if (threadIdx.x == 0) {
        Clip c = {1.0f, true};
        if (s.norm_sq) {
            const double norm = sqrt(*s.norm_sq);
            c.finite = isfinite(norm);
            if (s.max_norm > 0.0)
                c.factor = float(fmin(s.max_norm / (norm + 1e-6), 1.0));
        }
        if (s.loss) {
            const double loss = s.flags & LOSS_F64 ? *static_cast<const double *>(s.loss)
                                                   : double(*static_cast<const float *>(s.loss));
            c.finite = c.finite && isfinite(loss);
        }
        shared = c;
    }
    __syncthreads();
    return shared;
}

// The first range that ends after i.
__device__ __forceinline__ uint32_t range_at(const Step &s, uint64_t i) {
    uint32_t low = 0, high = s.ranges;
    while (low < high) {
        const uint32_t mid = (low + high) / 2;
        if (s.decay[2 * mid + 1] <= i)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

// Weight decay's factor at i; `range` moves on as i grows.
__device__ __forceinline__ float keep_at(const Step &s, uint64_t i, uint32_t &range) {
    while (range < s.ranges && s.decay[2 * range + 1] <= i)
        range++;
    return range < s.ranges && s.decay[2 * range] <= i ? s.keep : 1.0f;
}

__device__ __forceinline__ float update(const Step &s, float w, float g, float keep, float &m, float &v) {
    m = __fadd_rn(m, __fmul_rn(s.new1, __fsub_rn(g, m)));
    v = __fadd_rn(__fmul_rn(s.beta2, v), __fmul_rn(__fmul_rn(s.new2, g), g));
    const float below = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), s.root), s.eps);
    return __fsub_rn(__fmul_rn(w, keep), __fdiv_rn(__fmul_rn(s.rate, m), below));
}

// Up to four numbers at i of an array of n, 0 beyond it.
template <typename T4, typename T>
__device__ __forceinline__ void load4(const T *from, uint64_t i, uint64_t n, T (&x)[4]) {
    if (i + 4 <= n) {
        const T4 v = *reinterpret_cast<const T4 *>(from + i);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        x[k] = i + k < n ? from[i + k] : T(0);
}

template <typename T4, typename T>
__device__ __forceinline__ void store4(T *to, uint64_t i, uint64_t n, const T (&x)[4]) {
    if (i + 4 <= n) {
        *reinterpret_cast<T4 *>(to + i) = T4{x[0], x[1], x[2], x[3]};
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (i + k < n)
            to[i + k] = x[k];
}

__device__ __forceinline__ double block_sum(double sum) {
    __shared__ double sums[THREADS];
    sums[threadIdx.x] = sum;
    for (uint32_t half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    return sums[0];
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS) l2_partials(const float *x, uint64_t n, double *partials) {
    const uint64_t stride = uint64_t(gridDim.x) * THREADS * 4;
    double sum = 0.0;
#pragma unroll 4
    for (uint64_t i = (uint64_t(blockIdx.x) * THREADS + threadIdx.x) * 4; i < n; i += stride) {
        float v[4];
        load4<float4>(x, i, n, v);
#pragma unroll
        for (float one : v)
            sum += double(one) * double(one);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    l2_finish(const double *partials, uint32_t count, double *norm_sq) {
    double sum = 0.0;
    for (uint32_t i = threadIdx.x; i < count; i += THREADS)
        sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *norm_sq = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) adamw(const Step s) {
    const Clip c = clip(s);
    const uint64_t stride = uint64_t(gridDim.x) * THREADS * 4;
    const float zeros[4] = {};
    float *const ms = static_cast<float *>(s.m), *const vs = static_cast<float *>(s.v);
    for (uint64_t i = (uint64_t(blockIdx.x) * THREADS + threadIdx.x) * 4; i < s.n; i += stride) {
        if (c.finite) {
            float w[4], g[4], m[4], v[4];
            load4<float4>(s.values, i, s.n, w);
            load4<float4>(s.grads, i, s.n, g);
            load4<float4>(ms, i, s.n, m);
            load4<float4>(vs, i, s.n, v);
            uint32_t range = range_at(s, i);
#pragma unroll
            for (int k = 0; k < 4; k++)
                w[k] = update(s, w[k], __fmul_rn(g[k], c.factor), keep_at(s, i + k, range), m[k], v[k]);
            store4<float4>(s.values, i, s.n, w);
            store4<float4>(ms, i, s.n, m);
            store4<float4>(vs, i, s.n, v);
        }
        if (s.flags & ZERO_GRADS)
            store4<float4>(s.grads, i, s.n, zeros);
    }
}

// A warp holds one block of 256: a lane the four numbers at 4 * lane and the four at 128 + 4 * lane.
extern "C" __global__ void __launch_bounds__(THREADS) adamw_8bit(const Step8 s8) {
    const Step &s = s8.step;
    __shared__ float code_m[256], code_v[256], mids_m[255], mids_v[255];
    const uint32_t t = threadIdx.x;
    code_m[t] = s8.code_m[t];
    code_v[t] = s8.code_v[t];
    if (t < 255) {
        mids_m[t] = midpoint(s8.code_m[t], s8.code_m[t + 1]);
        mids_v[t] = midpoint(s8.code_v[t], s8.code_v[t + 1]);
    }
    const Clip c = clip(s); // a barrier for the tables too
    const float zeros[4] = {};
    uint8_t *const ms = static_cast<uint8_t *>(s.m), *const vs = static_cast<uint8_t *>(s.v);
    const uint64_t blocks = (s.n + 255) / 256;
    for (uint64_t block = uint64_t(blockIdx.x) * (THREADS / 32) + t / 32; block < blocks;
         block += uint64_t(gridDim.x) * (THREADS / 32)) {
        const uint64_t at[2] = {block * 256 + t % 32 * 4, block * 256 + 128 + t % 32 * 4};
        if (c.finite) {
            float w[2][4], g[2][4], m[2][4], v[2][4];
            const float old_m = s8.absmax_m[block], old_v = s8.absmax_v[block];
            float top_m = 0.0f, top_v = 0.0f;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint8_t qm[4], qv[4];
                load4<float4>(s.values, at[h], s.n, w[h]);
                load4<float4>(s.grads, at[h], s.n, g[h]);
                load4<uchar4>(ms, at[h], s.n, qm);
                load4<uchar4>(vs, at[h], s.n, qv);
                uint32_t range = range_at(s, at[h]);
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    m[h][k] = __fmul_rn(code_m[qm[k]], old_m);
                    v[h][k] = __fmul_rn(code_v[qv[k]], old_v);
                    w[h][k] = update(s, w[h][k], __fmul_rn(g[h][k], c.factor), keep_at(s, at[h] + k, range),
                                     m[h][k], v[h][k]);
                    if (at[h] + k < s.n) {
                        top_m = fmaxf(top_m, fabsf(m[h][k]));
                        top_v = fmaxf(top_v, v[h][k]);
                    }
                }
                store4<float4>(s.values, at[h], s.n, w[h]);
            }
#pragma unroll
            for (uint32_t lane = 16; lane > 0; lane /= 2) {
                top_m = fmaxf(top_m, __shfl_xor_sync(0xffffffffu, top_m, lane));
                top_v = fmaxf(top_v, __shfl_xor_sync(0xffffffffu, top_v, lane));
            }
            const float scale_m = reciprocal(top_m), scale_v = reciprocal(top_v);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint8_t qm[4], qv[4];
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    uint32_t code = nearest(mids_m, __fmul_rn(m[h][k], scale_m));
                    // A moment keeps its sign: a small negative one is not rounded to 0.
                    if (m[h][k] < 0.0f && !(code_m[code] < 0.0f))
                        code--;
                    qm[k] = uint8_t(code);
                    // Nor is a small second moment, or the first would be divided by eps alone at the next small
                    // gradient. (bitsandbytes does round it to 0; all else is as there.)
                    code = nearest(mids_v, __fmul_rn(v[h][k], scale_v));
                    qv[k] = uint8_t(code == 0 && v[h][k] > 0.0f ? 1 : code);
                }
                store4<uchar4>(ms, at[h], s.n, qm);
                store4<uchar4>(vs, at[h], s.n, qv);
            }
            if (t % 32 == 0) {
                s8.absmax_m[block] = top_m;
                s8.absmax_v[block] = top_v;
            }
        }
        if (s.flags & ZERO_GRADS)
#pragma unroll
            for (int h = 0; h < 2; h++)
                store4<float4>(s.grads, at[h], s.n, zeros);
    }
}
