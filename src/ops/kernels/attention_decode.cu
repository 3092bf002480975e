// Attention of one new query per sequence over its cached keys and values: what a step of generation needs.
//
// Bound by the bytes of the cache, which are read once: the query heads of a group go together, as the rows of one
// matrix product. Keys and values come straight from global memory to the registers that mma.sync wants them in, 16
// bytes a load; which of D columns a thread's words are is chosen for that, the same in both factors.
//   attention_decode_D   grid (splits, kv_heads * ceil(group / 16), batch), 32 WARPS threads, shared memory
//                        64 (WARPS (D + 3) + splits) bytes; WARPS = 8 (D = 128, 256: 4).
//   attention_append_D   grid (tokens), 128 threads: k and v of rows of qkv into the caches (a prompt)
// D = 64, 80, 96, 128, 256. Each split has its part of the keys, the last to finish combines them: worth it only where
// kv_heads * batch blocks do not fill the card. Nothing of the launch depends on the lengths, which are read on the
// device, so a captured graph stays right as they grow. That a cache has room for the position is the host's to see to.

#include "attention_math.cuh"

// A Rust #[repr(C)] twin has the same fields in the same order: eight pointers, four i64, six i32, two f32.
struct DecodeParams {
    const bf16* qkv;    // [tokens, qkv_row]: as in AttentionParams; for decode one token a sequence
    bf16* out;          // [batch, out_row]
    bf16* keys;         // sequence b, position j, head k: b * cache_sequence + j * cache_row + k * D
    bf16* values;
    const int* lengths; // [batch]: positions in the caches before this token
    float* partial;     // splits > 1: batch * heads * splits * (D + 2)
    int* counters;      // splits > 1: [batch, kv_heads * ceil(group / 16)], zero before the first launch and after each
    const int2* slots;  // append: (sequence, position) of each token; null: token b at lengths[b] of sequence b
    long long qkv_row, out_row, cache_sequence, cache_row; // elements, multiples of 8
    int batch, heads, kv_heads;
    int window;         // as in AttentionParams
    int splits;
    int append;         // decode: first put k and v of qkv at position lengths[b], and see lengths[b] + 1 positions
    float scale, softcap;
};

// `WORDS` 4-byte words from an address of as many bytes' alignment.
template <int WORDS> __device__ __forceinline__ void words(unsigned* to, const bf16* from) {
    if constexpr (WORDS == 4) {
        uint4 x = *(const uint4*)from;
        to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
    } else if constexpr (WORDS == 2) {
        uint2 x = *(const uint2*)from;
        to[0] = x.x, to[1] = x.y;
    } else {
        to[0] = *(const unsigned*)from;
    }
}

// A row's D columns as the summed index of a product: of each 32 (the last may be 16), lane % 4 has 8 (4) in a row.
template <int D> __device__ __forceinline__ void summed(unsigned (&w)[D / 8], const bf16* row) {
    int part = threadIdx.x % 4;
#pragma unroll
    for (int g = 0; g < D / 32; g++) words<4>(w + 4 * g, row + 32 * g + 8 * part);
    if constexpr (D % 32 == 16) words<2>(w + D / 8 - 2, row + D - 16 + 4 * part);
}

// A row's D columns as columns of the result: of each 64 (the last may be 32 or 16), lane / 4 has 8 (4, 2) in a row.
template <int D> __device__ __forceinline__ void spread(unsigned (&w)[D / 16], const bf16* row) {
    int part = threadIdx.x % 32 / 4;
#pragma unroll
    for (int g = 0; g < D / 64; g++) words<4>(w + 4 * g, row + 64 * g + 8 * part);
    if constexpr (D % 64 > 0) words<D % 64 / 16>(w + D / 64 * 4, row + D / 64 * 64 + D % 64 / 8 * part);
}

// Which column that is: element e of what `spread` gave to lanes with lane / 4 = part.
template <int D> __device__ __forceinline__ int spread_column(int part, int e) {
    return e < D / 64 * 8 ? e / 8 * 64 + part * 8 + e % 8 : D / 64 * 64 + part * (D % 64 / 8) + (e - D / 64 * 8);
}

__device__ __forceinline__ void copy_row(bf16* to, const bf16* from, int count) {
    for (int c = threadIdx.x * 8; c < count; c += blockDim.x * 8) *(uint4*)(to + c) = *(const uint4*)(from + c);
}

// Parts of a softmax over keys, `stride` floats apart: [rows, D] sums, [rows] tops (in base 2), [rows] totals.
template <int D> struct Parts {
    const float* at;
    int count, stride, rows;

    // What each part's sums of each row are to be multiplied with: weights[part * rows + row]. Returns the top and the
    // total of all parts in row threadIdx.x; `whole`: of nothing else, so the weights bring normalised sums.
    __device__ __forceinline__ float2 weigh(float* weights, bool whole) const {
        float top = -INFINITY_F, total = 0.f;
        const int row = threadIdx.x;
        if (row < rows) {
            const float* tops = at + rows * D + row;
#pragma unroll 4
            for (int i = 0; i < count; i++) top = fmaxf(top, tops[i * stride]);
#pragma unroll 4
            for (int i = 0; i < count; i++) {
                float own = tops[i * stride], weight = own == -INFINITY_F ? 0.f : exp2_fast(own - top);
                total += weight * tops[i * stride + rows];
                weights[i * rows + row] = weight;
            }
            if (whole) {
                float norm = total > 0.f ? 1.f / total : 0.f;
                for (int i = 0; i < count; i++) weights[i * rows + row] *= norm;
            }
        }
        __syncthreads();
        return make_float2(top, total);
    }

    __device__ __forceinline__ float2 sum(const float* weights, int row, int column) const {
        float2 sum = make_float2(0.f, 0.f);
#pragma unroll 4
        for (int i = 0; i < count; i++) {
            float w = weights[i * rows + row];
            float2 x = *(const float2*)(at + i * stride + row * D + column);
            sum.x += w * x.x, sum.y += w * x.y;
        }
        return sum;
    }

    __device__ __forceinline__ void finish(float* weights, bf16* to) const {
        weigh(weights, true);
        for (int i = threadIdx.x; i < rows * D / 2; i += blockDim.x) {
            int row = i / (D / 2), column = i % (D / 2) * 2;
            float2 x = sum(weights, row, column);
            *(unsigned*)(to + row * D + column) = pack(x.x, x.y);
        }
    }
};

// KEYS at a time for each warp.
template <int D, int KEYS, int WARPS> __device__ __forceinline__ void decode(const DecodeParams& p, float* shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int group = p.heads / p.kv_heads, pieces = (group + 15) / 16;
    const int split = blockIdx.x, kv_head = blockIdx.y / pieces, piece = blockIdx.y % pieces, batch = blockIdx.z;
    const int rows = min(16, group - piece * 16), head = kv_head * group + piece * 16;
    bf16* keys = p.keys + batch * p.cache_sequence + kv_head * D;
    bf16* values = p.values + batch * p.cache_sequence + kv_head * D;
    const bf16* qkv = p.qkv + batch * p.qkv_row;

    const int seen = p.lengths[batch] + p.append, low = p.window > 0 ? max(0, seen - p.window) : 0;
    const int each = ((seen - low + p.splits - 1) / p.splits + WARPS * KEYS - 1) / (WARPS * KEYS) * (WARPS * KEYS);
    const int from = low + split * each, to = min(seen, from + each);
    if (p.append && from < seen && to == seen) {
        copy_row(keys + (seen - 1) * p.cache_row, qkv + (p.heads + kv_head) * D, D);
        copy_row(values + (seen - 1) * p.cache_row, qkv + (p.heads + p.kv_heads + kv_head) * D, D);
        __syncthreads();
    }

    AttentionParams scores{};
    scores.scale = p.scale, scores.softcap = p.softcap;
    const Scores rule(scores);
    const int part = lane / 4;
    unsigned q[2][D / 8];
#pragma unroll
    for (int r = 0; r < 2; r++) summed<D>(q[r], qkv + (head + min(part + 8 * r, rows - 1)) * D);
    float sums[D / 8][4];
#pragma unroll
    for (int i = 0; i < D / 8; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.f;
    Softmax softmax;
    softmax.start();

    for (int key = from + warp * KEYS; key < to; key += WARPS * KEYS) {
        unsigned k[KEYS / 8][D / 8], v[KEYS / 4][D / 16];
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) summed<D>(k[j], keys + min(key + 8 * j + part, to - 1) * p.cache_row);
        auto load_values = [&] {
#pragma unroll
            for (int j = 0; j < KEYS / 4; j++) {
                int row = key + j / 4 * 16 + j / 2 % 2 * 8 + lane % 4 * 2 + j % 2;
                spread<D>(v[j], values + min(row, to - 1) * p.cache_row);
            }
        };
        if (D < 256) load_values(); // in flight during the scores, if registers allow
        float s[KEYS / 2], rescale[2];
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
            float acc[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
            for (int c = 0; c < D / 16; c++) {
                unsigned a[4] = {q[0][2 * c], q[1][2 * c], q[0][2 * c + 1], q[1][2 * c + 1]};
                mma(acc, a, k[j][2 * c], k[j][2 * c + 1]);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) s[4 * j + i] = acc[i];
        }
        rule.cap(s);
        if (key + KEYS > to) {
#pragma unroll
            for (int i = 0; i < KEYS / 2; i++)
                if (key + 8 * (i / 4) + lane % 4 * 2 + i % 2 >= to) s[i] = -INFINITY_F;
        }
        softmax.step(s, rule.factor, rescale);
        if (D == 256) load_values();
#pragma unroll
        for (int i = 0; i < D / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[i][e] *= rescale[e / 2];
#pragma unroll
        for (int c = 0; c < KEYS / 16; c++) {
            unsigned a[4];
            as_operand(a, s, c);
#pragma unroll
            for (int i = 0; i < D / 8; i++) {
                unsigned pick = i % 2 ? 0x7632 : 0x5410;
                mma(sums[i], a, bytes(v[4 * c][i / 2], v[4 * c + 1][i / 2], pick),
                    bytes(v[4 * c + 2][i / 2], v[4 * c + 3][i / 2], pick));
            }
        }
    }

    // The warps' parts to shared memory, then together.
    const int stride = rows * (D + 2);
    float* own = shared + warp * stride;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float total = quad_sum(softmax.total[r]);
        int row = part + 8 * r;
        if (row < rows) {
#pragma unroll
            for (int i = 0; i < D / 8; i++)
#pragma unroll
                for (int e = 0; e < 2; e++) own[row * D + spread_column<D>(lane % 4 * 2 + e, i)] = sums[i][2 * r + e];
            if (lane % 4 == 0) own[rows * D + row] = softmax.top[r] * rule.factor, own[rows * D + rows + row] = total;
        }
    }
    __syncthreads();
    const Parts<D> warps{shared, WARPS, stride, rows};
    float* weights = shared + WARPS * stride;
    bf16* out = p.out + batch * p.out_row + head * D;
    if (p.splits == 1) {
        warps.finish(weights, out);
        return;
    }
    const long long before = (long long)(batch * p.kv_heads + kv_head) * group + piece * 16; // rows
    float* all = p.partial + before * p.splits * (D + 2);
    float* mine = all + split * stride;
    const float2 both = warps.weigh(weights, false);
    if (threadIdx.x < rows) mine[rows * D + threadIdx.x] = both.x, mine[rows * D + rows + threadIdx.x] = both.y;
    for (int i = threadIdx.x; i < rows * D / 2; i += blockDim.x) {
        int row = i / (D / 2), column = i % (D / 2) * 2;
        *(float2*)(mine + row * D + column) = warps.sum(weights, row, column);
    }
    __threadfence();
    __syncthreads();
    int* counter = p.counters + batch * gridDim.y + blockIdx.y;
    if (threadIdx.x == 0) {
        int last = atomicAdd(counter, 1) == p.splits - 1;
        if (last) *counter = 0;
        *(int*)shared = last;
    }
    __syncthreads();
    if (*(int*)shared == 0) return;
    __threadfence();
    Parts<D>{all, p.splits, stride, rows}.finish(weights, out);
}

template <int D> __device__ __forceinline__ void append(const DecodeParams& p) {
    const int token = blockIdx.x;
    int2 slot;
    if (p.slots) slot = p.slots[token];
    else slot.x = token, slot.y = p.lengths[token];
    const long long at = slot.x * p.cache_sequence + slot.y * p.cache_row;
    const bf16* keys = p.qkv + token * p.qkv_row + (long long)p.heads * D;
    copy_row(p.keys + at, keys, p.kv_heads * D);
    copy_row(p.values + at, keys + p.kv_heads * D, p.kv_heads * D);
}

#define DECODE(D, KEYS, WARPS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                       \
        attention_decode_##D(const __grid_constant__ DecodeParams p) {                                             \
        extern __shared__ __align__(128) char shared[];                                                            \
        decode<D, KEYS, WARPS>(p, (float*)shared);                                                                 \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) attention_append_##D(const __grid_constant__ DecodeParams p) { \
        append<D>(p);                                                                                              \
    }

DECODE(64, 32, 8)
DECODE(80, 32, 8)
DECODE(96, 32, 8)
DECODE(128, 32, 4)
DECODE(256, 16, 4)
