// Causal attention over packed sequences, backward, on any card from compute capability 8.0 on.
//
// Two passes, each of which computes the scores again from q, k and the log-sum-exp: one over the keys of a tile of
// queries gives dq, one over the queries of a tile of keys gives dk and dv, for all query heads of a group. Two more
// products than one pass with atomics, but no f32 copy of dq, and the same bits each time.
//
// In this order, 128 threads a block, dynamic shared memory in bytes:
//   attention_dq_D         grid (heads, n_tiles), tiles of 64 queries, (128 + 2 KEYS) (D + 8) 2;
//                          KEYS = 64 (D = 256: 32)
//   attention_dkv_D        grid (kv_heads * splits, n_tiles, D = 256 ? 2 : 1), tiles of 64 keys,
//                          (128 + 4 QUERIES) (D + 8) 2; QUERIES = 64 (D = 64), 32, 16 (D = 256)
//   attention_dkv_sum_D    only with splits > 1: grid (tokens), 128 threads

#include "attention_tile.cuh"

template <int D, int KEYS> __device__ __forceinline__ void dq(const AttentionParams& p, char* shared) {
    constexpr int QUERIES = 64, THREADS = 128, ROW = (D + 8) * 2;
    const unsigned q = shared_address(shared), dout = q + QUERIES * ROW, k = dout + QUERIES * ROW, v = k + KEYS * ROW;
    const int4 tile = p.tiles[blockIdx.y];
    const int start = tile.x, end = tile.y, query = tile.z, head = blockIdx.x;
    const bf16* keys = p.qkv + (long long)(p.heads + head / (p.heads / p.kv_heads)) * D;
    const bf16* values = keys + (long long)p.kv_heads * D;
    const int own = threadIdx.x / 32 * 16, mine = query + own + threadIdx.x % 32 / 4;
    const Scores rule(p);
    const int first = p.window > 0 ? max(start, query - p.window + 1) : start;
    const int low = (first - start) / KEYS, high = (min(query + QUERIES, end) - start + KEYS - 1) / KEYS;

    load_rows<D, QUERIES, THREADS>(q, p.qkv + (long long)head * D, p.qkv_row, query, end);
    load_rows<D, QUERIES, THREADS>(dout, p.dout + (long long)head * D, p.dout_row, query, end);
    load_rows<D, KEYS, THREADS>(k, keys, p.qkv_row, start + (high - 1) * KEYS, end);
    load_rows<D, KEYS, THREADS>(v, values, p.qkv_row, start + (high - 1) * KEYS, end);
    copy_commit();
    float2 stats[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = mine + 8 * r;
        float delta = 0.f;
        if (row < end) {
            const bf16* x = p.out + row * p.out_row + head * D;
            const bf16* y = p.dout + row * p.dout_row + head * D;
#pragma unroll
            for (int c = threadIdx.x % 4; c < D / 8; c += 4)
                delta += dot8(*(const uint4*)(x + 8 * c), *(const uint4*)(y + 8 * c));
        }
        stats[r] = new_query_stat(p, head, row, end, quad_sum(delta));
    }
    auto stat = [&](int i) { return stats[i / 2 % 2]; };
    float sums[1][D / 2];
#pragma unroll
    for (int i = 0; i < D / 2; i++) sums[0][i] = 0.f;
    for (int block = high - 1; block >= low; block--) {
        const int key = start + block * KEYS;
        copy_wait<0>();
        __syncthreads();
        float s[1][KEYS / 2], ds[1][KEYS / 2];
        scores<D, 1, KEYS>(s, q, own, k);
        scores<D, 1, KEYS>(ds, dout, own, v);
        __syncthreads(); // nobody reads the values any more
        if (block > low) load_rows<D, KEYS, THREADS>(v, values, p.qkv_row, key - KEYS, end);
        cap_backward(rule, s[0], ds[0], stat);
        if (crosses_edge(query + own, 16, key, KEYS, p.window)) mask_keys(s[0], mine, key, p.window);
        probabilities(s[0], rule.factor, stat);
        score_gradients(s[0], ds[0], stat);
        accumulate<D, 1, KEYS, D>(sums, ds, k, 0);
        __syncthreads(); // nor the keys
        if (block > low) load_rows<D, KEYS, THREADS>(k, keys, p.qkv_row, key - KEYS, end);
        copy_commit();
    }
    store_rows(p.dqkv + (long long)head * D, p.dqkv_row, query + own, end, sums[0], p.scale, p.scale);
}

// COLUMNS of the D columns of dk and dv, so that their sums fit in registers.
template <int D, int QUERIES, int COLUMNS> __device__ __forceinline__ void dkv(const AttentionParams& p, char* shared) {
    constexpr int KEYS = 64, THREADS = 128, ROW = (D + 8) * 2, STAGE = 2 * QUERIES * ROW;
    const unsigned k = shared_address(shared), v = k + KEYS * ROW, stages = v + KEYS * ROW;
    // In what each row of keys leaves free, so that D = 256 fits in 99 KiB.
    auto stats = [&](int i) { return (float2*)(shared + i / 2 * ROW + 2 * D) + i % 2; };
    static_assert(2 * QUERIES <= 2 * KEYS, "two stages of statistics");
    const int4 tile = p.tiles[blockIdx.y];
    const int end = tile.y, key = tile.z;
    const int kv_head = blockIdx.x / p.splits, split = blockIdx.x % p.splits, from = blockIdx.z * COLUMNS;
    const long long key_column = (long long)(p.heads + kv_head) * D;
    const long long value_column = key_column + (long long)p.kv_heads * D;
    const int own = threadIdx.x / 32 * 16, mine = key + own + threadIdx.x % 32 / 4;
    const Scores rule(p);
    const Heads heads(p, kv_head, split);
    // Queries that see a key of the tile, in blocks from the first key on, which are the same for each head.
    const int last = p.window > 0 ? min(end, key + KEYS - 1 + p.window) : end;
    const int blocks = (last - key + QUERIES - 1) / QUERIES, count = blocks * (heads.to - heads.from);

    auto load = [&](int item) {
        const int head = heads.from + item / blocks, query = key + item % blocks * QUERIES;
        const unsigned at = stages + item % 2 * STAGE;
        load_rows<D, QUERIES, THREADS>(at, p.qkv + (long long)head * D, p.qkv_row, query, end);
        load_rows<D, QUERIES, THREADS>(at + QUERIES * ROW, p.dout + (long long)head * D, p.dout_row, query, end);
        if (threadIdx.x < QUERIES)
            *stats(item % 2 * QUERIES + threadIdx.x) = query_stat(p, head, query + threadIdx.x, end);
    };

    load_rows<D, KEYS, THREADS>(k, p.qkv + key_column, p.qkv_row, key, end);
    load_rows<D, KEYS, THREADS>(v, p.qkv + value_column, p.qkv_row, key, end);
    if (count > 0) load(0);
    copy_commit();
    float dk[1][COLUMNS / 2], dv[1][COLUMNS / 2];
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) dk[0][i] = dv[0][i] = 0.f;
    for (int item = 0; item < count; item++) {
        copy_wait<0>();
        __syncthreads(); // this block is there, and nobody reads the last any more
        if (item + 1 < count) load(item + 1);
        copy_commit();
        const int query = key + item % blocks * QUERIES;
        const unsigned q = stages + item % 2 * STAGE, dout = q + QUERIES * ROW;
        const int column = item % 2 * QUERIES + 2 * (threadIdx.x % 4);
        auto stat = [&](int i) { return *stats(column + 8 * (i / 4) + i % 2); };
        float s[1][QUERIES / 2], ds[1][QUERIES / 2];
        scores<D, 1, QUERIES>(s, k, own, q);
        scores<D, 1, QUERIES>(ds, v, own, dout);
        cap_backward(rule, s[0], ds[0], stat);
        if (crosses_edge(query, QUERIES, key + own, 16, p.window)) mask_queries(s[0], mine, query, p.window);
        probabilities(s[0], rule.factor, stat);
        accumulate<D, 1, QUERIES, COLUMNS>(dv, s, dout, from);
        score_gradients(s[0], ds[0], stat);
        accumulate<D, 1, QUERIES, COLUMNS>(dk, ds, q, from);
    }
    copy_wait<0>();
    if (p.splits == 1) {
        store_rows(p.dqkv + key_column + from, p.dqkv_row, key + own, end, dk[0], p.scale, p.scale);
        store_rows(p.dqkv + value_column + from, p.dqkv_row, key + own, end, dv[0], 1.f, 1.f);
    } else {
        const long long row = 2 * p.kv_heads * D;
        float* to = p.partial + split * p.tokens * row + kv_head * D + from;
        store_rows(to, row, key + own, end, dk[0], p.scale);
        store_rows(to + p.kv_heads * D, row, key + own, end, dv[0], 1.f);
    }
}

template <int D> __device__ __forceinline__ void dkv_sum(const AttentionParams& p) {
    const long long row = 2 * p.kv_heads * D, token = blockIdx.x;
    for (int c = 2 * threadIdx.x; c < row; c += 256) {
        float2 sum = make_float2(0.f, 0.f);
        for (int split = 0; split < p.splits; split++) {
            float2 x = *(const float2*)(p.partial + (split * p.tokens + token) * row + c);
            sum.x += x.x, sum.y += x.y;
        }
        *(unsigned*)(p.dqkv + token * p.dqkv_row + (long long)p.heads * D + c) = pack(sum.x, sum.y);
    }
}

#define BACKWARD(D, KEYS, QUERIES, COLUMNS)                                                                           \
    extern "C" __global__ void __launch_bounds__(128) attention_dq_##D(const __grid_constant__ AttentionParams p) {    \
        extern __shared__ __align__(128) char shared[];                                                               \
        dq<D, KEYS>(p, shared);                                                                                       \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(128) attention_dkv_##D(const __grid_constant__ AttentionParams p) {   \
        extern __shared__ __align__(128) char shared[];                                                               \
        dkv<D, QUERIES, COLUMNS>(p, shared);                                                                          \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(128) attention_dkv_sum_##D(                                          \
        const __grid_constant__ AttentionParams p) {                                                                  \
        dkv_sum<D>(p);                                                                                                \
    }

BACKWARD(64, 64, 64, 64)
BACKWARD(80, 64, 32, 80)
BACKWARD(96, 64, 32, 96)
BACKWARD(128, 64, 32, 128)
BACKWARD(256, 32, 16, 128)
