// Causal attention over packed sequences, forward, on Hopper (compute capability 9.0).
//
// The mathematics of attention.cu; one warpgroup copies, the others multiply (Shah et al., "FlashAttention-3", 2024):
// the product with the next keys runs during the softmax of the last, and warpgroups take turns at the matrix unit.
// Grid min(multiprocessors, items); an item is a tile of queries of one head, laid out as HopperAttentionParams says.
//   attention_fwd_64_hopper               tiles of 192, 512 threads, 147584 bytes of dynamic shared memory
//   attention_fwd_80, 96, 128_hopper      tiles of 128, 384 threads, 196704 bytes
//   attention_fwd_256_hopper              tiles of 128, 384 threads, 196688 bytes

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "attention_hopper.cuh"
#include "attention_tile.cuh"

template <int D, int GROUPS, int KEYS, int STAGES, int QSTAGES> struct Forward {
    static constexpr int QUERIES = 64 * GROUPS, THREADS = 128 * (GROUPS + 1);
    static constexpr int TILE = QUERIES * ROW_BYTES<D>, BLOCK = KEYS * ROW_BYTES<D>;
    static constexpr int Q = 0, K = QSTAGES * TILE, V = K + STAGES * BLOCK, END = V + STAGES * BLOCK;
    // Barriers after the tiles, 8 bytes each.
    static constexpr int Q_FULL = END, Q_FREE = Q_FULL + 8 * QSTAGES, K_FULL = Q_FREE + 8 * QSTAGES,
                         K_FREE = K_FULL + 8 * STAGES, V_FULL = K_FREE + 8 * STAGES, V_FREE = V_FULL + 8 * STAGES,
                         BYTES = V_FREE + 8 * STAGES;

    using Work = KeyBlocks<QUERIES, KEYS>;

    static __device__ __forceinline__ void produce(const HopperAttentionParams& p, unsigned base) {
        Ring<STAGES> ring;
        Ring<QSTAGES> queries;
        for (Items items(p.a); items.next();) {
            Work w(p.a, items.item);
            int key_column = (p.a.heads + w.head / (p.a.heads / p.a.kv_heads)) * D;
            int value_column = key_column + p.a.kv_heads * D;
            barrier_wait(base + Q_FREE + 8 * queries.stage, queries.parity ^ 1);
            barrier_expect(base + Q_FULL + 8 * queries.stage, TILE);
            copy_tile<D, QUERIES>(base + Q + queries.stage * TILE, &p.qkv, w.head * D, w.query,
                                  base + Q_FULL + 8 * queries.stage);
            queries.next();
            for (int key = w.highest; key >= w.lowest; key -= KEYS) {
                int at = ring.stage;
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

    // group: which of the multiplying warpgroups. Where the next item allows, its first product is on its way before
    // the last of the one before it has been stored.
    static __device__ __forceinline__ void consume(const HopperAttentionParams& p, unsigned base, int group) {
        const Scores rule(p.a);
        const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        const unsigned q = base + Q + group * 64 * 128;
        Ring<STAGES> keys, values;
        Ring<QSTAGES> queries;
        float s[KEYS / 2], sums[D / 2], rescale[2];
        unsigned a[KEYS / 16][4];
        bool begun = false; // the item's first product has been issued
        if (group == GROUPS - 1) named_arrive<256>(1); // the first group begins

        for (Items items(p.a); items.next();) {
            // Blocks of keys from the last that some query of the tile sees to the first, at `lowest`. Those in which
            // no query of this warpgroup sees a key (or it has no query) only take part in the barriers.
            const Work w(p.a, items.item);
            const int lowest = w.lowest;
            int key = w.highest;
            if (!begun) {
                const int own = w.highest_of(group);
                barrier_wait(base + Q_FULL + 8 * queries.stage, queries.parity);
                for (; key > own; key -= KEYS) {
                    barrier_wait(base + K_FULL + 8 * keys.stage, keys.parity);
                    barrier_wait(base + V_FULL + 8 * values.stage, values.parity);
                    if (lane == 0) {
                        barrier_arrive(base + K_FREE + 8 * keys.stage);
                        barrier_arrive(base + V_FREE + 8 * values.stage);
                    }
                    keys.next();
                    values.next();
                    if (key > lowest) {
                        named_sync<256>(1 + group);
                        named_arrive<256>(1 + (group + 1) % GROUPS);
                    }
                }
                if (own < lowest) {
                    if (lane == 0) barrier_arrive(base + Q_FREE + 8 * queries.stage);
                    queries.next();
                    continue;
                }
                barrier_wait(base + K_FULL + 8 * keys.stage, keys.parity);
                wgmma_fence();
                product_transposed<D, KEYS, QUERIES, KEYS>(s, q + queries.stage * TILE, base + K + keys.stage * BLOCK);
                wgmma_commit();
            }
            const int first = w.query + 64 * group + 16 * warp;
            Softmax softmax;
            softmax.start();
#pragma unroll
            for (int i = 0; i < D / 2; i++) sums[i] = 0.f;
            auto weigh = [&](int key) {
                rule.cap(s);
                if (crosses_edge(first, 16, key, KEYS, p.a.window)) mask_keys(s, first + lane / 4, key, p.a.window);
                softmax.step(s, rule.factor, rescale);
            };
            wgmma_wait<0>();
            hold(s);
            if (lane == 0) barrier_arrive(base + K_FREE + 8 * keys.stage);
            keys.next();
            weigh(key);
            as_operands<KEYS>(a, s);

            while (key > lowest) {
                key -= KEYS;
                barrier_wait(base + K_FULL + 8 * keys.stage, keys.parity);
                named_sync<256>(1 + group);
                wgmma_fence();
                product_transposed<D, KEYS, QUERIES, KEYS>(s, q + queries.stage * TILE, base + K + keys.stage * BLOCK);
                wgmma_commit();
                barrier_wait(base + V_FULL + 8 * values.stage, values.parity);
                wgmma_fence();
                product<D, KEYS>(sums, a, base + V + values.stage * BLOCK);
                wgmma_commit();
                named_arrive<256>(1 + (group + 1) % GROUPS);
                wgmma_wait<1>();
                hold(s);
                if (lane == 0) barrier_arrive(base + K_FREE + 8 * keys.stage);
                keys.next();
                weigh(key);
                hold(s);
                if (GROUPS == 2) done_before_wait(softmax.total[0] + softmax.total[1]); // three hide it from each other
                wgmma_wait<0>();
                hold(sums);
                if (lane == 0) barrier_arrive(base + V_FREE + 8 * values.stage);
                values.next();
#pragma unroll
                for (int i = 0; i < D / 2; i++) sums[i] *= rescale[i / 2 % 2];
                as_operands<KEYS>(a, s);
            }
            if (lane == 0) barrier_arrive(base + Q_FREE + 8 * queries.stage);
            queries.next();
            const int4 ahead = items.peek();
            begun = false;
            if (ahead.w >= 0) {
                const Work next(p.a, ahead);
                begun = QSTAGES > 1 && next.highest_of(group) == next.highest;
            }
            if (begun) {
                barrier_wait(base + Q_FULL + 8 * queries.stage, queries.parity);
                barrier_wait(base + K_FULL + 8 * keys.stage, keys.parity);
            }
            barrier_wait(base + V_FULL + 8 * values.stage, values.parity);
            wgmma_fence();
            product<D, KEYS>(sums, a, base + V + values.stage * BLOCK);
            wgmma_commit();
            if constexpr (QSTAGES > 1) { // of no use unless begun, and then done again
                product_transposed<D, KEYS, QUERIES, KEYS>(s, q + queries.stage * TILE, base + K + keys.stage * BLOCK);
                wgmma_commit();
            }
            float norm[2], lse[2];
            softmax.finish(rule.factor, norm, lse);
            wgmma_wait<(QSTAGES > 1)>();
            hold(sums);
            if (lane == 0) barrier_arrive(base + V_FREE + 8 * values.stage);
            values.next();
            const int4 item = items.again(); // not kept in registers all the while
            store_rows(p.a.out + (long long)item.w * D, p.a.out_row, first, item.y, sums, norm[0], norm[1]);
            if (lane % 4 == 0) {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    int row = first + lane / 4 + 8 * r;
                    if (row < item.y) p.a.lse[(long long)item.w * p.a.tokens + row] = lse[r];
                }
            }
            if (!begun) wgmma_wait<0>();
        }
    }

    static __device__ __forceinline__ void run(const HopperAttentionParams& p, char* shared) {
        const unsigned base = shared_address(shared);
        if (threadIdx.x == 0) {
            for (int i = 0; i < QSTAGES; i++) {
                barrier_start(base + Q_FULL + 8 * i, 1);
                barrier_start(base + Q_FREE + 8 * i, 4 * GROUPS);
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
            consume(p, base, multiplier());
        }
    }
};

#define FORWARD(D, GROUPS, KEYS, STAGES, QSTAGES, BYTES_)                                      \
    static_assert(Forward<D, GROUPS, KEYS, STAGES, QSTAGES>::BYTES == BYTES_, "as the head says"); \
    extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                        \
        attention_fwd_##D##_hopper(const __grid_constant__ HopperAttentionParams p) {          \
        extern __shared__ __align__(1024) char shared[];                                       \
        Forward<D, GROUPS, KEYS, STAGES, QSTAGES>::run(p, shared);                             \
    }

FORWARD(64, 3, 128, 3, 2, 147584)
FORWARD(80, 2, 128, 2, 2, 196704)
FORWARD(96, 2, 128, 2, 2, 196704)
FORWARD(128, 2, 128, 2, 2, 196704)
FORWARD(256, 2, 64, 2, 1, 196688)
#endif
