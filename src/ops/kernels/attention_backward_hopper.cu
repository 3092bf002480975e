// Causal attention over packed sequences, backward, on Hopper (compute capability 9.0).
//
// The two passes of attention_backward.cu (whose attention_dkv_sum_D comes behind).
// Gradients of scores stay in registers: the pass over keys has queries as rows, the pass over queries has keys as
// rows, so that each is the left operand of what follows. One warpgroup copies, two multiply.
//   attention_dq_D_hopper     items of 128 queries of a head
//   attention_dkv_D_hopper    items of 128 keys, for a part of the query heads of a group
// D = 64, 128; grid min(multiprocessors, items), 384 threads, shared memory BYTES below; items as HopperAttentionParams
// says.

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "attention_hopper.cuh"
#include "attention_tile.cuh"

// LATE: the last product of a block of keys runs on under the first of the next, if registers allow.
template <int D, int GROUPS, int KEYS, int STAGES, int QSTAGES, bool LATE> struct QueryGradients {
    static constexpr int QUERIES = 64 * GROUPS, TILE = QUERIES * ROW_BYTES<D>, BLOCK = KEYS * ROW_BYTES<D>;
    static constexpr int Q = 0, DOUT = QSTAGES * TILE, OUT = 2 * QSTAGES * TILE, K = 3 * QSTAGES * TILE, V = K + STAGES * BLOCK, END = V + STAGES * BLOCK;
    static constexpr int FULL = END, FREE = FULL + 8 * QSTAGES, K_FULL = FREE + 8 * QSTAGES, K_FREE = K_FULL + 8 * STAGES,
                         V_FULL = K_FREE + 8 * STAGES, V_FREE = V_FULL + 8 * STAGES, BYTES = V_FREE + 8 * STAGES;

    struct Work {
        int start, end, query, head, low, high; // key blocks [low, high) from `start` on

        __device__ __forceinline__ Work(const AttentionParams& p, int4 item) {
            start = item.x, end = item.y, query = item.z, head = item.w;
            int first = p.window > 0 ? max(start, query - p.window + 1) : start;
            low = (first - start) / KEYS, high = (min(query + QUERIES, end) - start + KEYS - 1) / KEYS;
        }
    };

    static __device__ __forceinline__ void produce(const HopperAttentionParams& p, unsigned base) {
        Ring<STAGES> ring;
        Ring<QSTAGES> queries;
        for (Items items(p.a); items.next();) {
            Work w(p.a, items.item);
            int key_column = (p.a.heads + w.head / (p.a.heads / p.a.kv_heads)) * D;
            int value_column = key_column + p.a.kv_heads * D;
            const unsigned full = base + FULL + 8 * queries.stage, tile = queries.stage * TILE;
            barrier_wait(base + FREE + 8 * queries.stage, queries.parity ^ 1);
            barrier_expect(full, 3 * TILE);
            copy_tile<D, QUERIES>(base + Q + tile, &p.qkv, w.head * D, w.query, full);
            copy_tile<D, QUERIES>(base + DOUT + tile, &p.dout, w.head * D, w.query, full);
            copy_tile<D, QUERIES>(base + OUT + tile, &p.out, w.head * D, w.query, full);
            queries.next();
            for (int block = w.high - 1; block >= w.low; block--) {
                int key = w.start + block * KEYS, at = ring.stage;
                barrier_wait(base + K_FREE + 8 * at, ring.parity ^ 1);
                barrier_expect(base + K_FULL + 8 * at, BLOCK);
                copy_tile<D, KEYS>(base + K + at * BLOCK, &p.qkv, key_column, key, base + K_FULL + 8 * at);
                barrier_wait(base + V_FREE + 8 * at, ring.parity ^ 1);
                barrier_expect(base + V_FULL + 8 * at, BLOCK);
                copy_tile<D, KEYS>(base + V + at * BLOCK, &p.qkv, value_column, key, base + V_FULL + 8 * at);
                ring.next();
            }
        }
    }

    static __device__ __forceinline__ void consume(const HopperAttentionParams& p, const char* shared, unsigned base, int group) {
        const Scores rule(p.a);
        const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        Ring<STAGES> ring;
        Ring<QSTAGES> queries;
        for (Items items(p.a); items.next();) {
            Work w(p.a, items.item);
            const int first = w.query + 64 * group + 16 * warp, mine = first + lane / 4;
            const char* tiles = shared + queries.stage * TILE;
            float2 stats[2] = {};
            float s[KEYS / 2], ds[KEYS / 2], sums[D / 2];
            unsigned a[KEYS / 16][4];
#pragma unroll
            for (int i = 0; i < D / 2; i++) sums[i] = 0.f;
            const unsigned q = base + Q + queries.stage * TILE + group * 64 * 128, dout = q + DOUT - Q;
            barrier_wait(base + FULL + 8 * queries.stage, queries.parity);
            auto stat = [&](int i) { return stats[i / 2 % 2]; };
            bool known = false;
            int before = -1; // the stage whose keys the product in flight reads
            for (int block = w.high - 1; block >= w.low; block--) {
                const int key = w.start + block * KEYS;
                if (key > w.query + 64 * group + 63 || w.query + 64 * group >= w.end) { // no query here sees a key
                    barrier_wait(base + K_FULL + 8 * ring.stage, ring.parity);
                    barrier_wait(base + V_FULL + 8 * ring.stage, ring.parity);
                    if (lane == 0) {
                        barrier_arrive(base + K_FREE + 8 * ring.stage);
                        barrier_arrive(base + V_FREE + 8 * ring.stage);
                        if (block == w.low) barrier_arrive(base + FREE + 8 * queries.stage);
                    }
                    ring.next();
                    continue;
                }
                barrier_wait(base + K_FULL + 8 * ring.stage, ring.parity);
                wgmma_fence();
                product_transposed<D, KEYS, QUERIES, KEYS>(s, q, base + K + ring.stage * BLOCK);
                wgmma_commit();
                barrier_wait(base + V_FULL + 8 * ring.stage, ring.parity);
                wgmma_fence();
                product_transposed<D, KEYS, QUERIES, KEYS>(ds, dout, base + V + ring.stage * BLOCK);
                wgmma_commit();
                if (!known) { // under the first products
                    known = true;
#pragma unroll
                    for (int r = 0; r < 2; r++)
                        stats[r] = new_query_stat(p.a, w.head, mine + 8 * r, w.end,
                                                  row_dot<D, QUERIES>(tiles + OUT, tiles + DOUT, mine - w.query + 8 * r));
                }
                if (rule.inside == 0.f) {
                    wgmma_wait<1>();
                    hold(s);
                } else {
                    wgmma_wait<0>();
                    hold(s);
                    hold(ds);
                    cap_backward(rule, s, ds, stat);
                }
                if (LATE && before >= 0 && lane == 0) barrier_arrive(base + K_FREE + 8 * before);
                if (crosses_edge(first, 16, key, KEYS, p.a.window)) mask_keys(s, mine, key, p.a.window);
                probabilities(s, rule.factor, stat);
                hold(s);
                done_before_wait(fminf(s[KEYS / 2 - 1], s[KEYS / 4 - 1]));
                wgmma_wait<0>();
                hold(ds);
                if (lane == 0) {
                    barrier_arrive(base + V_FREE + 8 * ring.stage);
                    if (block == w.low) barrier_arrive(base + FREE + 8 * queries.stage);
                }
                score_gradients(s, ds, stat);
                as_operands<KEYS>(a, ds);
                hold(sums);
                wgmma_fence();
                product<D, KEYS>(sums, a, base + K + ring.stage * BLOCK);
                wgmma_commit();
                before = ring.stage;
                ring.next();
                if (!LATE) {
                    wgmma_wait<0>();
                    hold(sums);
                    if (lane == 0) barrier_arrive(base + K_FREE + 8 * before);
                }
            }
            if (LATE) {
                wgmma_wait<0>();
                hold(sums);
                if (before >= 0 && lane == 0) barrier_arrive(base + K_FREE + 8 * before);
            }
            queries.next();
            store_rows(p.a.dqkv + (long long)w.head * D, p.a.dqkv_row, first, w.end, sums, p.a.scale, p.a.scale);
        }
    }

    static __device__ __forceinline__ void run(const HopperAttentionParams& p, char* shared) {
        const unsigned base = shared_address(shared);
        if (threadIdx.x == 0) {
            for (int i = 0; i < QSTAGES; i++) {
                barrier_start(base + FULL + 8 * i, 1);
                barrier_start(base + FREE + 8 * i, 4 * GROUPS);
            }
            for (int i = 0; i < STAGES; i++) {
                barrier_start(base + K_FULL + 8 * i, 1);
                barrier_start(base + V_FULL + 8 * i, 1);
                barrier_start(base + K_FREE + 8 * i, 4 * GROUPS);
                barrier_start(base + V_FREE + 8 * i, 4 * GROUPS);
            }
            barriers_started();
        }
        __syncthreads();
        if (threadIdx.x < 128) {
            registers_down<Registers<GROUPS>::COPY>();
            if (threadIdx.x == 0) produce(p, base);
        } else {
            registers_up<Registers<GROUPS>::MULTIPLY>();
            consume(p, shared, base, multiplier());
        }
    }
};

template <int D, int GROUPS, int QUERIES, int STAGES> struct KeyGradients {
    static constexpr int KEYS = 64 * GROUPS, TILE = KEYS * ROW_BYTES<D>, BLOCK = QUERIES * ROW_BYTES<D>;
    static constexpr int K = 0, V = TILE, Q = 2 * TILE, DOUT = Q + STAGES * BLOCK, STATS = DOUT + STAGES * BLOCK,
                         END = STATS + STAGES * QUERIES * 8;
    static constexpr int KV_FULL = END, KV_FREE = END + 8, FULL = END + 16, FREE = FULL + 8 * STAGES,
                         BYTES = FREE + 8 * STAGES;

    struct Work {
        int end, key, last, kv_head, split, from, count; // blocks of queries [key, last), for each head from `from` on

        __device__ __forceinline__ Work(const AttentionParams& p, int4 item) {
            end = item.y, key = item.z, kv_head = item.w / p.splits, split = item.w % p.splits;
            last = p.window > 0 ? min(end, key + KEYS - 1 + p.window) : end;
            Heads heads(p, kv_head, split);
            from = heads.from, count = (last - key + QUERIES - 1) / QUERIES * (heads.to - heads.from);
        }
    };

    // Thread 0 has the tiles copied; the threads of the second warp bring the queries' statistics.
    static __device__ __forceinline__ void produce(const HopperAttentionParams& p, char* shared, unsigned base) {
        Ring<STAGES> ring;
        int parity = 1;
        for (Items items(p.a); items.next();) {
            Work w(p.a, items.item);
            if (threadIdx.x == 0) {
                int column = (p.a.heads + w.kv_head) * D;
                barrier_wait(base + KV_FREE, parity);
                barrier_expect(base + KV_FULL, 2 * TILE);
                copy_tile<D, KEYS>(base + K, &p.qkv, column, w.key, base + KV_FULL);
                copy_tile<D, KEYS>(base + V, &p.qkv, column + p.a.kv_heads * D, w.key, base + KV_FULL);
            }
            parity ^= 1;
            int head = w.from, query = w.key;
            for (int i = 0; i < w.count; i++) {
                int at = ring.stage;
                barrier_wait(base + FREE + 8 * at, ring.parity ^ 1);
                if (threadIdx.x == 0) {
                    barrier_expect(base + FULL + 8 * at, 2 * BLOCK);
                    copy_tile<D, QUERIES>(base + Q + at * BLOCK, &p.qkv, head * D, query, base + FULL + 8 * at);
                    copy_tile<D, QUERIES>(base + DOUT + at * BLOCK, &p.dout, head * D, query, base + FULL + 8 * at);
                } else {
                    float2* stats = (float2*)(shared + STATS) + at * QUERIES;
                    for (int r = threadIdx.x - 32; r < QUERIES; r += 32) stats[r] = query_stat(p.a, head, query + r, w.end);
                    barrier_arrive(base + FULL + 8 * at);
                }
                ring.next();
                query += QUERIES;
                if (query >= w.last) head++, query = w.key;
            }
        }
    }

    static __device__ __forceinline__ void consume(const HopperAttentionParams& p, char* shared, unsigned base, int group) {
        const Scores rule(p.a);
        const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        const unsigned k = base + K + group * 64 * 128, v = base + V + group * 64 * 128;
        Ring<STAGES> ring;
        int parity = 0;
        for (Items items(p.a); items.next();) {
            Work w(p.a, items.item);
            const int first = w.key + 64 * group + 16 * warp, mine = first + lane / 4;
            float s[QUERIES / 2], ds[QUERIES / 2], dk[D / 2], dv[D / 2];
            unsigned a[QUERIES / 16][4], da[QUERIES / 16][4];
#pragma unroll
            for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0.f;
            barrier_wait(base + KV_FULL, parity);
            parity ^= 1;
            for (int i = 0, query = w.key; i < w.count; i++) {
                const unsigned q = base + Q + ring.stage * BLOCK, dout = base + DOUT + ring.stage * BLOCK;
                barrier_wait(base + FULL + 8 * ring.stage, ring.parity);
                const float4* columns = (const float4*)(shared + STATS) + (ring.stage * QUERIES / 2 + lane % 4);
                auto stat = [&](int i) {
                    float4 both = columns[4 * (i / 4)];
                    return i % 2 ? make_float2(both.z, both.w) : make_float2(both.x, both.y);
                };
                wgmma_fence();
                product_transposed<D, QUERIES, KEYS, QUERIES>(s, k, q);
                wgmma_commit();
                product_transposed<D, QUERIES, KEYS, QUERIES>(ds, v, dout);
                wgmma_commit();
                if (rule.inside == 0.f) {
                    wgmma_wait<1>();
                    hold(s);
                } else {
                    wgmma_wait<0>();
                    hold(s);
                    hold(ds);
                    cap_backward(rule, s, ds, stat);
                }
                if (crosses_edge(query, QUERIES, first, 16, p.a.window)) mask_queries(s, mine, query, p.a.window);
                probabilities(s, rule.factor, stat);
                as_operands<QUERIES>(a, s);
                hold(dv);
                wgmma_fence();
                product<D, QUERIES>(dv, a, dout);
                wgmma_commit();
                wgmma_wait<1>();
                hold(ds);
                packed_gradients<QUERIES>(da, a, ds, stat);
                hold(dk);
                wgmma_fence();
                product<D, QUERIES>(dk, da, q);
                wgmma_commit();
                wgmma_wait<0>();
                hold(dk);
                hold(dv);
                if (lane == 0) barrier_arrive(base + FREE + 8 * ring.stage);
                ring.next();
                query = query + QUERIES < w.last ? query + QUERIES : w.key;
            }
            if (lane == 0) barrier_arrive(base + KV_FREE);
            const long long row = 2 * p.a.kv_heads * D, key_column = (long long)(p.a.heads + w.kv_head) * D;
            if (p.a.splits == 1) {
                bf16* to = p.a.dqkv + key_column;
                store_rows(to, p.a.dqkv_row, first, w.end, dk, p.a.scale, p.a.scale);
                store_rows(to + (long long)p.a.kv_heads * D, p.a.dqkv_row, first, w.end, dv, 1.f, 1.f);
            } else {
                float* to = p.a.partial + w.split * p.a.tokens * row + w.kv_head * D;
                store_rows(to, row, first, w.end, dk, p.a.scale);
                store_rows(to + p.a.kv_heads * D, row, first, w.end, dv, 1.f);
            }
        }
    }

    static __device__ __forceinline__ void run(const HopperAttentionParams& p, char* shared) {
        const unsigned base = shared_address(shared);
        if (threadIdx.x == 0) {
            barrier_start(base + KV_FULL, 1);
            barrier_start(base + KV_FREE, 4 * GROUPS);
            for (int i = 0; i < STAGES; i++) {
                barrier_start(base + FULL + 8 * i, 1 + 32);
                barrier_start(base + FREE + 8 * i, 4 * GROUPS);
            }
            barriers_started();
        }
        __syncthreads();
        if (threadIdx.x < 128) {
            registers_down<Registers<GROUPS>::COPY>();
            if (threadIdx.x == 0 || threadIdx.x / 32 == 1) produce(p, shared, base);
        } else {
            registers_up<Registers<GROUPS>::MULTIPLY>();
            consume(p, shared, base, multiplier());
        }
    }
};

#define BACKWARD(D, QSTAGES, LATE, QUERIES, STAGES)                                                \
    extern "C" __global__ void __launch_bounds__(384, 1)                                           \
        attention_dq_##D##_hopper(const __grid_constant__ HopperAttentionParams p) {               \
        extern __shared__ __align__(1024) char shared[];                                           \
        QueryGradients<D, 2, 128, 2, QSTAGES, LATE>::run(p, shared);                               \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(384, 1)                                           \
        attention_dkv_##D##_hopper(const __grid_constant__ HopperAttentionParams p) {              \
        extern __shared__ __align__(1024) char shared[];                                           \
        KeyGradients<D, 2, QUERIES, STAGES>::run(p, shared);                                       \
    }

BACKWARD(64, 2, true, 128, 2)
BACKWARD(80, 1, false, 64, 3)
BACKWARD(96, 1, false, 64, 3)
BACKWARD(128, 1, false, 64, 3)
#endif
