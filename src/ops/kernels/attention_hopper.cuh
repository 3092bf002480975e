// Tiles of the Hopper kernels: how they lie in shared memory, how they come there, and their products by a warpgroup.
//
// Operands lie in panels: rows of 64 elements (128 bytes), the 16-byte pieces of row r exchanged by XOR with r % 8,
// as a tensor map with CU_TENSOR_MAP_SWIZZLE_128B and a box of 64 by 64 elements delivers them. A tile of D columns
// is one panel after the other; of the last, columns past D are whatever lies there, and nothing reads them.

#pragma once
#include "attention_math.cuh"
#include "ptx_hopper.cuh"

// In Rust #[repr(C, align(64))]: three CUtensorMap, then AttentionParams; 512 bytes. All maps: bf16, rank 2, sizes
// (columns, tokens), stride row * 2 bytes, box (64, 64), no interleave, SWIZZLE_128B, L2_PROMOTION_256B, NaN fill off.
// The columns of `qkv` are (heads + 2 kv_heads) D, those of `dout` and `out` heads D.
//
// `tiles` is the work of each block, laid out by the host: block b does tiles[b], tiles[b + blocks], ... up to n_tiles
// or the first whose column is -1. Which items go to which block decides how evenly they end: give the heaviest item
// left to the block with the least so far. An item's column is a query head, or for dk and dv kv_head * splits + split.
struct HopperAttentionParams {
    TensorMap qkv;
    TensorMap dout, out; // backward only
    AttentionParams a;
};

// The items of this block.
struct Items {
    const AttentionParams& p;
    int at;
    int4 item;

    __device__ __forceinline__ explicit Items(const AttentionParams& p) : p(p), at(blockIdx.x) {}
    __device__ __forceinline__ bool next() {
        if (at >= p.n_tiles) return false;
        item = p.tiles[at];
        at += gridDim.x;
        return item.w >= 0;
    }
    // The next item, which next() will go to.
    __device__ __forceinline__ int4 peek() const {
        int4 none;
        none.x = none.y = none.z = 0, none.w = -1;
        return at < p.n_tiles ? p.tiles[at] : none;
    }
    // The item once more, from memory.
    __device__ __forceinline__ int4 again() const { return p.tiles[at - gridDim.x]; }
};

constexpr int PANEL = 64;      // columns of a panel
constexpr int BOX = 64;        // rows that one tensor copy brings
constexpr int BOX_BYTES = 8192;

// Of a row of D columns in shared memory.
template <int D> constexpr int ROW_BYTES = (D + PANEL - 1) / PANEL * 128;

// Registers of a thread of the warpgroup that copies and of the GROUPS that multiply. A block has no more than it was
// launched with: a warpgroup that wants more than the others left would wait for ever.
template <int GROUPS> struct Registers {
    static constexpr int COPY = GROUPS == 2 ? 24 : 32, MULTIPLY = GROUPS == 2 ? 240 : 160;
    static constexpr int LAUNCHED = 65536 / (128 * (GROUPS + 1)) / 8 * 8;
    static_assert(COPY + GROUPS * MULTIPLY <= (GROUPS + 1) * LAUNCHED, "more registers than the block has");
};

// The same in all threads of a warp. Tells the compiler so, that addresses and loops stay in uniform registers: else it
// moves every matrix descriptor from one kind of register to the other, between the instructions that need them.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(0xffffffff, x, 0); }

// Which of the multiplying warpgroups this is.
__device__ __forceinline__ int multiplier() { return uniform(threadIdx.x / 128) - 1; }

// The place in a ring of STAGES buffers, and how often it went round.
template <int STAGES> struct Ring {
    int stage = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// The keys that a tile of QUERIES queries goes over, KEYS at a time from the last that some query sees to `lowest`.
template <int QUERIES, int KEYS> struct KeyBlocks {
    int start, end, query, head, lowest, highest;

    __device__ __forceinline__ KeyBlocks(const AttentionParams& p, int4 item) {
        start = item.x, end = item.y, query = item.z, head = item.w;
        int first = p.window > 0 ? max(start, query - p.window + 1) : start;
        lowest = start + (first - start) / KEYS * KEYS;
        highest = start + (min(query + QUERIES, end) - 1 - start) / KEYS * KEYS;
    }
    // The same for the queries of one warpgroup; below `lowest` if it has none.
    __device__ __forceinline__ int highest_of(int group) const {
        int own = query + 64 * group;
        return own >= end ? lowest - KEYS : min(highest, start + (own + 63 - start) / KEYS * KEYS);
    }
};

// ROWS rows of D columns, to panels.
template <int D, int ROWS>
__device__ __forceinline__ void copy_tile(unsigned to, const TensorMap* map, int column, int row, unsigned barrier) {
#pragma unroll
    for (int c = 0; c < ROW_BYTES<D> / 128; c++)
#pragma unroll
        for (int r = 0; r < ROWS / BOX; r++)
            copy_box(to + (c * (ROWS / BOX) + r) * BOX_BYTES, map, column + c * PANEL, row + r * BOX, barrier);
}

// 128-byte swizzle; rows in groups of 8 are 1024 bytes apart. `panels`: bytes from a panel to the next, of use only
// where the panel's columns are those of the product.
__device__ __forceinline__ Tile describe(unsigned address, int panels) {
    return (Tile)((address & 0x3ffff) >> 4) | (Tile)(panels >> 4) << 16 | (Tile)(1024 >> 4) << 32 | (Tile)1 << 62;
}


// The dot product of row `row` of two tiles of D columns and ROWS rows, for the four threads of one lane / 4 together.
template <int D, int ROWS> __device__ __forceinline__ float row_dot(const char* x, const char* y, int row) {
    float sum = 0.f;
#pragma unroll
    for (int c = threadIdx.x % 4; c < D / 8; c += 4) {
        int at = c / 8 * ROWS * 128 + row * 128 + (c % 8 ^ row % 8) * 16;
        sum += dot8(*(const uint4*)(x + at), *(const uint4*)(y + at));
    }
    return quad_sum(sum);
}

// d = a b^T over D columns: 64 rows of the tile at `a`, N rows of the tile at `b`. AROWS, BROWS: rows of a whole panel.
template <int D, int N, int AROWS, int BROWS>
__device__ __forceinline__ void product_transposed(float (&d)[N / 2], unsigned a, unsigned b) {
    Tile x = describe(a, 0), y = describe(b, 0);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma_shared<N>(d, x + (k / 4 * AROWS * 128 + k % 4 * 32) / 16, y + (k / 4 * BROWS * 128 + k % 4 * 32) / 16,
                        k > 0);
}

// d += a b: a [64, ROWS] in registers, b the tile of ROWS rows and D columns at `b`; columns from FROM on.
template <int D, int ROWS, int FROM = 0>
__device__ __forceinline__ void product(float (&d)[D / 2], const unsigned (&a)[ROWS / 16][4], unsigned b) {
    constexpr int LEFT = D - FROM, N = LEFT >= 128 ? 128 : LEFT >= 64 ? 64 : LEFT >= 32 ? 32 : 16;
    Tile y = describe(b + FROM / PANEL * ROWS * 128, ROWS * 128);
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) wgmma_registers<N>((float(&)[N / 2])d[FROM / 2], a[k], y + k * 2048 / 16);
    if constexpr (N < LEFT) product<D, ROWS, FROM + N>(d, a, b);
}

template <int N> __device__ __forceinline__ void as_operands(unsigned (&a)[N / 16][4], const float (&s)[N / 2]) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) as_operand(a[k], s, k);
}

// score_gradients from probabilities that are operands already (bf16), straight to operands: their floats' registers
// are free by then.
template <int N, class Stat>
__device__ __forceinline__ void packed_gradients(unsigned (&da)[N / 16][4], const unsigned (&a)[N / 16][4],
                                                 const float (&ds)[N / 2], Stat stat) {
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int h = 0; h < 4; h++) {
            const int i = 8 * k + 2 * h;
            da[k][h] = pack(low_half(a[k][h]) * (ds[i] - stat(i).y), high_half(a[k][h]) * (ds[i + 1] - stat(i + 1).y));
        }
}
