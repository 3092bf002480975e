// Causal attention over packed sequences, forward, on any card from compute capability 8.0 on.
//
// out = softmax(mask(scale q k^T)) v and its log-sum-exp, scores never in memory (Dao, "FlashAttention-2", 2023).
// Kernel attention_fwd_D, D = 64, 80, 96, 128, 256; grid (heads, n_tiles), 128 threads,
// dynamic shared memory (QUERIES + 128) (D + 8) 2 bytes with tiles of QUERIES = 128 (D = 256: 64).

#include "attention_tile.cuh"

// M: 16-row pieces of queries a warp has; KEYS come at a time. Four warps.
template <int D, int M, int KEYS> __device__ __forceinline__ void forward(const AttentionParams& p, char* shared) {
    constexpr int QUERIES = 64 * M, THREADS = 128, ROW = (D + 8) * 2;
    const unsigned q = shared_address(shared), k = q + QUERIES * ROW, v = k + KEYS * ROW;
    const int4 tile = p.tiles[blockIdx.y];
    const int start = tile.x, end = tile.y, query = tile.z, head = blockIdx.x;
    const int kv_head = head / (p.heads / p.kv_heads);
    const bf16* keys = p.qkv + (long long)(p.heads + kv_head) * D;
    const bf16* values = keys + (long long)p.kv_heads * D;
    const int own = threadIdx.x / 32 * 16 * M; // this warp's first row in the tile
    const int mine = query + own + threadIdx.x % 32 / 4;
    const Scores rule(p);

    const int seen = min(query + QUERIES, end);
    const int first = p.window > 0 ? max(start, query - p.window + 1) : start;
    const int low = (first - start) / KEYS, high = (seen - start + KEYS - 1) / KEYS;

    load_rows<D, QUERIES, THREADS>(q, p.qkv + (long long)head * D, p.qkv_row, query, end);
    load_rows<D, KEYS, THREADS>(k, keys, p.qkv_row, start + (high - 1) * KEYS, end);
    copy_commit();

    float sums[M][D / 2];
    Softmax softmax[M];
#pragma unroll
    for (int m = 0; m < M; m++) {
        softmax[m].start();
#pragma unroll
        for (int i = 0; i < D / 2; i++) sums[m][i] = 0.f;
    }
    for (int block = high - 1; block >= low; block--) {
        const int key = start + block * KEYS;
        copy_wait<0>();
        __syncthreads(); // the keys are there, and nobody reads the values of the last block any more
        load_rows<D, KEYS, THREADS>(v, values, p.qkv_row, key, end);
        copy_commit();
        float s[M][KEYS / 2];
        scores<D, M, KEYS>(s, q, own, k);
        copy_wait<0>();
        __syncthreads(); // the values are there, and nobody reads the keys any more
        if (block > low) load_rows<D, KEYS, THREADS>(k, keys, p.qkv_row, key - KEYS, end);
        copy_commit();
#pragma unroll
        for (int m = 0; m < M; m++) {
            rule.cap(s[m]);
            if (crosses_edge(query + own + 16 * m, 16, key, KEYS, p.window))
                mask_keys(s[m], mine + 16 * m, key, p.window);
            float rescale[2];
            softmax[m].step(s[m], rule.factor, rescale);
#pragma unroll
            for (int i = 0; i < D / 2; i++) sums[m][i] *= rescale[i / 2 % 2];
        }
        accumulate<D, M, KEYS, D>(sums, s, v, 0);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        float norm[2], lse[2];
        softmax[m].finish(rule.factor, norm, lse);
        store_rows(p.out + (long long)head * D, p.out_row, query + own + 16 * m, end, sums[m], norm[0], norm[1]);
        if (threadIdx.x % 4 == 0) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int row = mine + 16 * m + 8 * r;
                if (row < end) p.lse[(long long)head * p.tokens + row] = lse[r];
            }
        }
    }
}

#define FORWARD(D, M)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) attention_fwd_##D(const __grid_constant__ AttentionParams p) { \
        extern __shared__ __align__(128) char shared[];                                                            \
        forward<D, M, 64>(p, shared);                                                                              \
    }

FORWARD(64, 2)
FORWARD(80, 2)
FORWARD(96, 2)
FORWARD(128, 2)
FORWARD(256, 1)
