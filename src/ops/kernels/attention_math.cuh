// The kernels' parameters, scores to probabilities, and the shape of a tile in a matrix instruction's accumulators.
// Shared by the forward and backward kernels of both kinds. Must not know where its operands live.
//
// Accumulators (mma.sync m16n8k16 and wgmma alike): thread `lane` of a warp holds, of each 8 columns j,
// s[4 j + 0, 1] at row lane / 4 and columns 8 j + 2 (lane % 4) + 0, 1, and s[4 j + 2, 3] at row lane / 4 + 8.

#pragma once
#include "ptx.cuh"

// A Rust #[repr(C)] twin has the same fields in the same order: eight pointers, four i64, six i32, two f32
// (128 bytes). Kernels read only what they need; the rest may be null or zero.
struct AttentionParams {
    const bf16* qkv;   // [tokens, qkv_row]: `heads` queries, then `kv_heads` keys, then `kv_heads` values of D each
    bf16* out;         // [tokens, out_row]: `heads` of D
    float* lse;        // [heads, tokens]: natural logarithm of the softmax denominator
    const bf16* dout;  // [tokens, dout_row]
    float* delta;      // [heads, tokens]: dot products of dout and out; attention_dq writes them, attention_dkv reads
    bf16* dqkv;        // [tokens, dqkv_row], laid out like qkv
    float* partial;    // splits > 1: [splits, tokens, 2 * kv_heads * D], sums of dk and dv over a part of a group
    const int4* tiles; // (first token of the sequence, its end, first token of the tile, column), see each kernel
    long long qkv_row, out_row, dout_row, dqkv_row; // elements from one token to the next, multiples of 8
    int tokens, heads, kv_heads, n_tiles;
    int window;        // query i sees keys j with i - window < j <= i; 0: all j <= i; less than 2^30
    int splits;        // into how many parts the query heads of a group are cut for dk and dv
    float scale;       // of the scores
    float softcap;     // scores become softcap * tanh(score / softcap); 0: they stay
};

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f
#define INFINITY_F __int_as_float(0x7f800000)

// Scores are kept so that probability = exp2(score * `factor` - maximum * `factor`).
struct Scores {
    float factor;  // log2(e) * scale, or log2(e) * softcap once tanh has been taken
    float inside;  // 2 log2(e) scale / softcap, or 0 without a cap

    __device__ __forceinline__ explicit Scores(const AttentionParams& p) {
        bool capped = p.softcap > 0.f;
        factor = LOG2_E * (capped ? p.softcap : p.scale);
        inside = capped ? 2.f * LOG2_E * p.scale / p.softcap : 0.f;
    }

    // tanh from one exponential: the hardware's own tanh errs by 2^-11, which a cap of 50 would make 1 % of a
    // probability.
    __device__ __forceinline__ float capped(float s) const {
        return 1.f - 2.f * reciprocal(1.f + exp2_fast(s * inside));
    }

    template <int N> __device__ __forceinline__ void cap(float (&s)[N]) const {
        if (inside != 0.f) {
#pragma unroll
            for (int i = 0; i < N; i++) s[i] = capped(s[i]);
        }
    }
};

__device__ __forceinline__ bool visible(int query, int key, int window) {
    return key <= query && (window == 0 || key > query - window);
}

// Does a tile of queries [query, query + queries) and keys [key, key + keys) need a mask?
__device__ __forceinline__ bool crosses_edge(int query, int queries, int key, int keys, int window) {
    return key + keys - 1 > query || (window > 0 && key <= query + queries - 1 - window);
}

// Rows are queries from `query` on (this thread's own: lane / 4 added), columns keys from `key` on.
template <int N> __device__ __forceinline__ void mask_keys(float (&s)[N], int query, int key, int window) {
    int column = key + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (!visible(query + (i & 2 ? 8 : 0), column + 8 * (i / 4) + (i & 1), window)) s[i] = -INFINITY_F;
    }
}

// The same with rows and columns exchanged: rows are keys, columns queries.
template <int N> __device__ __forceinline__ void mask_queries(float (&s)[N], int key, int query, int window) {
    int column = query + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (!visible(column + 8 * (i / 4) + (i & 1), key + (i & 2 ? 8 : 0), window)) s[i] = -INFINITY_F;
    }
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// Softmax over keys that come a block at a time; two rows (lane / 4 and 8 below) a thread.
struct Softmax {
    float top[2], total[2]; // of this thread's columns alone until finish()

    __device__ __forceinline__ void start() {
        top[0] = top[1] = -INFINITY_F;
        total[0] = total[1] = 0.f;
    }

    // Scores to probabilities in place. `rescale` is what the sums so far are to be multiplied with.
    template <int N> __device__ __forceinline__ void step(float (&s)[N], float factor, float (&rescale)[2]) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float high = top[r];
#pragma unroll
            for (int i = 2 * r; i < N; i += 4) high = fmaxf(high, fmaxf(s[i], s[i + 1]));
            high = quad_max(high);
            // A row all of whose keys are masked so far: any finite number keeps it from being inf - inf.
            float shift = (high == -INFINITY_F ? 0.f : high) * factor;
            rescale[r] = exp2_fast(top[r] * factor - shift);
            top[r] = high;
            float sum = 0.f;
#pragma unroll
            for (int i = 2 * r; i < N; i += 4) {
                s[i] = exp2_fast(s[i] * factor - shift);
                s[i + 1] = exp2_fast(s[i + 1] * factor - shift);
                sum += s[i] + s[i + 1];
            }
            total[r] = total[r] * rescale[r] + sum;
        }
    }

    // Returns what the sums are to be multiplied with, and the log-sum-exp (natural).
    __device__ __forceinline__ void finish(float factor, float (&norm)[2], float (&lse)[2]) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float sum = quad_sum(total[r]);
            norm[r] = 1.f / sum;
            lse[r] = LN_2 * (top[r] * factor + log2_fast(sum));
        }
    }
};

// The 16 columns from 16 k on of accumulators, as the left operand [16, 16] of the next product.
template <int N> __device__ __forceinline__ void as_operand(unsigned (&a)[4], const float (&s)[N], int k) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = pack(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}

// --- backward ---
// `stat(i)`: of the query that element i of the accumulators belongs to, x = its log-sum-exp in base 2, y = its delta.

// With a cap, scores become tanh and their gradients take its derivative in; to be called before masking.
template <int N, class Stat>
__device__ __forceinline__ void cap_backward(const Scores& rule, float (&s)[N], float (&ds)[N], Stat stat) {
    if (rule.inside != 0.f) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            s[i] = rule.capped(s[i]);
            ds[i] = stat(i).y + (ds[i] - stat(i).y) * (1.f - s[i] * s[i]);
        }
    }
}

template <int N, class Stat> __device__ __forceinline__ void probabilities(float (&s)[N], float factor, Stat stat) {
#pragma unroll
    for (int i = 0; i < N; i++) s[i] = exp2_fast(s[i] * factor - stat(i).x);
}

// d(probabilities) to d(scores), but for the scale.
template <int N, class Stat>
__device__ __forceinline__ void score_gradients(const float (&p)[N], float (&ds)[N], Stat stat) {
#pragma unroll
    for (int i = 0; i < N; i++) ds[i] = p[i] * (ds[i] - stat(i).y);
}

// Log-sum-exp and delta of a query of one head; past `end`, such that its probabilities are zero.
__device__ __forceinline__ float2 query_stat(const AttentionParams& p, int head, int query, int end) {
    if (query >= end) return make_float2(INFINITY_F, 0.f);
    long long at = (long long)head * p.tokens + query;
    return make_float2(p.lse[at] * LOG2_E, p.delta[at]);
}

__device__ __forceinline__ float dot8(uint4 x, uint4 y) {
    return low_half(x.x) * low_half(y.x) + high_half(x.x) * high_half(y.x) + low_half(x.y) * low_half(y.y) +
           high_half(x.y) * high_half(y.y) + low_half(x.z) * low_half(y.z) + high_half(x.z) * high_half(y.z) +
           low_half(x.w) * low_half(y.w) + high_half(x.w) * high_half(y.w);
}

// The same from a delta just computed, which it writes down.
__device__ __forceinline__ float2 new_query_stat(const AttentionParams& p, int head, int query, int end, float delta) {
    if (query >= end) return make_float2(INFINITY_F, 0.f);
    long long at = (long long)head * p.tokens + query;
    if (threadIdx.x % 4 == 0) p.delta[at] = delta;
    return make_float2(p.lse[at] * LOG2_E, delta);
}

// The query heads [from, to) whose gradients one item of dk and dv sums: part `split` of `splits` of a group.
struct Heads {
    int from, to;

    __device__ __forceinline__ Heads(const AttentionParams& p, int kv_head, int split) {
        int group = p.heads / p.kv_heads, each = (group + p.splits - 1) / p.splits;
        from = kv_head * group + min(split * each, group);
        to = kv_head * group + min(split * each + each, group);
    }
};
