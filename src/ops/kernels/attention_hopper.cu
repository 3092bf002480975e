// Causal attention over packed sequences, forward, on Hopper (compute capability 9.0).
//
// The mathematics of attention.cu; one warpgroup copies, the others multiply (Shah et al., "FlashAttention-3", 2024):
// the product with the next keys runs during the softmax of the last, and warpgroups take turns at the matrix unit.
// Kernel attention_fwd_D_hopper, D = 64, 128; each block takes work until there is none, so the grid is
// min(multiprocessors, heads * n_tiles) blocks; threads, tile and shared memory below, at FORWARD.

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "attention_hopper.cuh"
#include "attention_tile.cuh"

template <int D, int GROUPS, int KEYS, int STAGES> struct Forward {
    static constexpr int QUERIES = 64 * GROUPS, THREADS = 128 * (GROUPS + 1);
    static constexpr int Q = 0, K = QUERIES * D * 2, V = K + STAGES * KEYS * D * 2, END = V + STAGES * KEYS * D * 2;
    // Barriers after the tiles, 8 bytes each.
    static constexpr int Q_FULL = END, Q_FREE = END + 8, K_FULL = END + 16, K_FREE = K_FULL + 8 * STAGES,
                         V_FULL = K_FREE + 8 * STAGES, V_FREE = V_FULL + 8 * STAGES, BYTES = V_FREE + 8 * STAGES;

    struct Work {
        int start, end, query, head, low, high; // key blocks [low, high) from `start` on

        __device__ __forceinline__ Work(const AttentionParams& p, int item) {
            int4 tile = p.tiles[item / p.heads];
            head = item % p.heads;
            start = tile.x, end = tile.y, query = tile.z;
            int first = p.window > 0 ? max(start, query - p.window + 1) : start;
            low = (first - start) / KEYS, high = (min(query + QUERIES, end) - start + KEYS - 1) / KEYS;
        }
    };

    static __device__ __forceinline__ void produce(const HopperAttentionParams& p, unsigned base) {
        Ring<STAGES> ring;
        int parity = 1, items = p.a.heads * p.a.n_tiles;
        for (int round = 0, item; (item = item_of(round)) < items; round++) {
            Work w(p.a, item);
            int key_column = (p.a.heads + w.head / (p.a.heads / p.a.kv_heads)) * D;
            int value_column = key_column + p.a.kv_heads * D;
            barrier_wait(base + Q_FREE, parity);
            parity ^= 1;
            barrier_expect(base + Q_FULL, QUERIES * D * 2);
            copy_tile<D, QUERIES>(base + Q, &p.qkv, w.head * D, w.query, base + Q_FULL);
            for (int block = w.high - 1; block >= w.low; block--) {
                int key = w.start + block * KEYS, at = ring.stage;
                barrier_wait(base + K_FREE + 8 * at, ring.parity ^ 1);
                barrier_expect(base + K_FULL + 8 * at, KEYS * D * 2);
                copy_tile<D, KEYS>(base + K + at * KEYS * D * 2, &p.qkv, key_column, key, base + K_FULL + 8 * at);
                barrier_wait(base + V_FREE + 8 * at, ring.parity ^ 1);
                barrier_expect(base + V_FULL + 8 * at, KEYS * D * 2);
                copy_tile<D, KEYS>(base + V + at * KEYS * D * 2, &p.qkv, value_column, key, base + V_FULL + 8 * at);
                ring.next();
            }
        }
    }

    // group: which of the multiplying warpgroups.
    static __device__ __forceinline__ void consume(const HopperAttentionParams& p, unsigned base, int group) {
        const Scores rule(p.a);
        const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, items = p.a.heads * p.a.n_tiles;
        const unsigned q = base + Q + group * 64 * 128;
        Ring<STAGES> keys, values;
        int parity = 0;
        if (group == GROUPS - 1) named_arrive<256>(1); // the first group begins
        for (int round = 0, item; (item = item_of(round)) < items; round++) {
            Work w(p.a, item);
            const int first = w.query + 64 * group + 16 * warp, mine = first + lane / 4;
            float s[KEYS / 2], sums[D / 2], rescale[2];
            unsigned a[KEYS / 16][4];
            Softmax softmax;
            softmax.start();
#pragma unroll
            for (int i = 0; i < D / 2; i++) sums[i] = 0.f;

            auto weigh = [&](int block) {
                int key = w.start + block * KEYS;
                rule.cap(s);
                if (crosses_edge(first, 16, key, KEYS, p.a.window)) mask_keys(s, mine, key, p.a.window);
                softmax.step(s, rule.factor, rescale);
            };

            barrier_wait(base + Q_FULL, parity);
            parity ^= 1;
            barrier_wait(base + K_FULL + 8 * keys.stage, keys.parity);
            wgmma_fence();
            product_transposed<D, KEYS, QUERIES, KEYS>(s, q, base + K + keys.stage * KEYS * D * 2);
            wgmma_commit();
            wgmma_wait<0>();
            hold(s);
            if (lane == 0) barrier_arrive(base + K_FREE + 8 * keys.stage);
            keys.next();
            weigh(w.high - 1);
            as_operands<KEYS>(a, s);

            for (int block = w.high - 2; block >= w.low; block--) {
                barrier_wait(base + K_FULL + 8 * keys.stage, keys.parity);
                named_sync<256>(1 + group);
                wgmma_fence();
                product_transposed<D, KEYS, QUERIES, KEYS>(s, q, base + K + keys.stage * KEYS * D * 2);
                wgmma_commit();
                barrier_wait(base + V_FULL + 8 * values.stage, values.parity);
                wgmma_fence();
                product<D, KEYS>(sums, a, base + V + values.stage * KEYS * D * 2);
                wgmma_commit();
                named_arrive<256>(1 + (group + 1) % GROUPS);
                wgmma_wait<1>();
                hold(s);
                if (lane == 0) barrier_arrive(base + K_FREE + 8 * keys.stage);
                keys.next();
                weigh(block);
                wgmma_wait<0>();
                hold(sums);
                if (lane == 0) barrier_arrive(base + V_FREE + 8 * values.stage);
                values.next();
#pragma unroll
                for (int i = 0; i < D / 2; i++) sums[i] *= rescale[i / 2 % 2];
                as_operands<KEYS>(a, s);
            }
            if (lane == 0) barrier_arrive(base + Q_FREE);
            barrier_wait(base + V_FULL + 8 * values.stage, values.parity);
            wgmma_fence();
            product<D, KEYS>(sums, a, base + V + values.stage * KEYS * D * 2);
            wgmma_commit();
            float norm[2], lse[2];
            softmax.finish(rule.factor, norm, lse);
            wgmma_wait<0>();
            hold(sums);
            if (lane == 0) barrier_arrive(base + V_FREE + 8 * values.stage);
            values.next();
            store_rows(p.a.out + (long long)w.head * D, p.a.out_row, first, w.end, sums, norm[0], norm[1]);
            if (lane % 4 == 0) {
#pragma unroll
                for (int r = 0; r < 2; r++)
                    if (mine + 8 * r < w.end) p.a.lse[(long long)w.head * p.a.tokens + mine + 8 * r] = lse[r];
            }
        }
    }

    static __device__ __forceinline__ void run(const HopperAttentionParams& p, char* shared) {
        const unsigned base = shared_address(shared);
        if (threadIdx.x == 0) {
            barrier_start(base + Q_FULL, 1);
            barrier_start(base + Q_FREE, 4 * GROUPS);
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
            registers_down<GROUPS == 2 ? 24 : 32>();
            if (threadIdx.x == 0) produce(p, base);
        } else {
            registers_up<GROUPS == 2 ? 240 : 160>();
            consume(p, base, threadIdx.x / 128 - 1);
        }
    }
};

#define FORWARD(D, GROUPS)                                                                     \
    extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                        \
        attention_fwd_##D##_hopper(const __grid_constant__ HopperAttentionParams p) {          \
        extern __shared__ __align__(1024) char shared[];                                       \
        Forward<D, GROUPS, 128, 2>::run(p, shared);                                            \
    }

FORWARD(64, 2)
FORWARD(128, 2)
#endif
