// Causal attention over packed sequences, backward, on Hopper (compute capability 9.0): dq, and delta on the way.
//
// The first pass of attention_backward.cu. Gradients of scores stay in registers: queries are the rows, so that they
// are the left operand of the product with the keys. One warpgroup copies, two multiply.
// Grid min(multiprocessors, items); an item is a tile of 128 queries of one head, laid out as HopperAttentionParams
// says; 384 threads.
//   attention_dq_64_hopper               163936 bytes of dynamic shared memory
//   attention_dq_80, 96, 128_hopper      229456 bytes

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "attention_hopper.cuh"
#include "attention_tile.cuh"

// LATE: the last product of a block of keys runs on under the first of the next, if registers allow.
template <int D, int GROUPS, int KEYS, int STAGES, int QSTAGES, bool LATE> struct QueryGradients {
    static constexpr int QUERIES = 64 * GROUPS, TILE = QUERIES * ROW_BYTES<D>, BLOCK = KEYS * ROW_BYTES<D>;
    static constexpr int Q = 0, DOUT = QSTAGES * TILE, OUT = 2 * QSTAGES * TILE, K = 3 * QSTAGES * TILE,
                         V = K + STAGES * BLOCK, END = V + STAGES * BLOCK;
    // Barriers after the tiles, 8 bytes each.
    static constexpr int FULL = END, FREE = FULL + 8 * QSTAGES, K_FULL = FREE + 8 * QSTAGES,
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
            const unsigned full = base + FULL + 8 * queries.stage, tile = queries.stage * TILE;
            barrier_wait(base + FREE + 8 * queries.stage, queries.parity ^ 1);
            barrier_expect(full, 3 * TILE);
            copy_tile<D, QUERIES>(base + Q + tile, &p.qkv, w.head * D, w.query, full);
            copy_tile<D, QUERIES>(base + DOUT + tile, &p.dout, w.head * D, w.query, full);
            copy_tile<D, QUERIES>(base + OUT + tile, &p.out, w.head * D, w.query, full);
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

    static __device__ __forceinline__ void consume(const HopperAttentionParams& p, const char* shared, unsigned base,
                                                   int group) {
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
            const int own = w.highest_of(group);
            for (int key = w.highest; key >= w.lowest; key -= KEYS) {
                if (key > own) { // no query of this warpgroup sees one of these keys
                    barrier_wait(base + K_FULL + 8 * ring.stage, ring.parity);
                    barrier_wait(base + V_FULL + 8 * ring.stage, ring.parity);
                    if (lane == 0) {
                        barrier_arrive(base + K_FREE + 8 * ring.stage);
                        barrier_arrive(base + V_FREE + 8 * ring.stage);
                        if (key == w.lowest) barrier_arrive(base + FREE + 8 * queries.stage);
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
                    for (int r = 0; r < 2; r++) {
                        const int row = mine + 8 * r;
                        const float delta = row_dot<D, QUERIES>(tiles + OUT, tiles + DOUT, row - w.query);
                        stats[r] = new_query_stat(p.a, w.head, row, w.end, delta);
                    }
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
                    if (key == w.lowest) barrier_arrive(base + FREE + 8 * queries.stage);
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

#define BACKWARD(D, QSTAGES, LATE, BYTES_)                                                         \
    static_assert(QueryGradients<D, 2, 128, 2, QSTAGES, LATE>::BYTES == BYTES_, "as the head says"); \
    extern "C" __global__ void __launch_bounds__(384, 1)                                           \
        attention_dq_##D##_hopper(const __grid_constant__ HopperAttentionParams p) {               \
        extern __shared__ __align__(1024) char shared[];                                           \
        QueryGradients<D, 2, 128, 2, QSTAGES, LATE>::run(p, shared);                               \
    }

BACKWARD(64, 2, true, 163936)
BACKWARD(80, 1, false, 229456)
BACKWARD(96, 1, false, 229456)
BACKWARD(128, 1, false, 229456)
#endif
