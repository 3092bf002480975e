// Causal attention over packed sequences, backward, on Hopper (compute capability 9.0): dk and dv.
//
// The second pass of attention_backward.cu, after attention_dq; with splits > 1 attention_dkv_sum_D comes behind.
// Probabilities and gradients of scores stay in registers: keys are the rows, so that they are the left operands of
// the products with dout and the queries. One warpgroup copies, two multiply.
// Grid min(multiprocessors, items); an item is a tile of 128 keys and one part of the query heads of a group, laid out
// as HopperAttentionParams says; 384 threads.
//   attention_dkv_64_hopper               134208 bytes of dynamic shared memory
//   attention_dkv_80, 96, 128_hopper      165440 bytes

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "attention_hopper.cuh"
#include "attention_tile.cuh"

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
                    for (int r = threadIdx.x - 32; r < QUERIES; r += 32)
                        stats[r] = query_stat(p.a, head, query + r, w.end);
                    barrier_arrive(base + FULL + 8 * at);
                }
                ring.next();
                query += QUERIES;
                if (query >= w.last) head++, query = w.key;
            }
        }
    }

    static __device__ __forceinline__ void consume(const HopperAttentionParams& p, const char* shared, unsigned base,
                                                   int group) {
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

#define BACKWARD(D, QUERIES, BYTES_)                                                           \
    static_assert(KeyGradients<D, 2, QUERIES, 3>::BYTES == BYTES_, "as the head says");        \
    extern "C" __global__ void __launch_bounds__(384, 1)                                       \
        attention_dkv_##D##_hopper(const __grid_constant__ HopperAttentionParams p) {          \
        extern __shared__ __align__(1024) char shared[];                                       \
        KeyGradients<D, 2, QUERIES, 3>::run(p, shared);                                        \
    }

BACKWARD(64, 128, 134208)
BACKWARD(80, 64, 165440)
BACKWARD(96, 64, 165440)
BACKWARD(128, 64, 165440)
#endif
