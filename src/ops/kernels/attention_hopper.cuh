// Tiles of the Hopper kernels: how they lie in shared memory, how they come there, and their products by a warpgroup.
//
// Operands lie in panels: rows of 64 elements (128 bytes), the 16-byte pieces of row r exchanged by XOR with r % 8,
// as a tensor map with CU_TENSOR_MAP_SWIZZLE_128B and a box of 64 by 64 elements delivers them. A tile of D columns
// is D / 64 panels, one after the other.

#pragma once
#include "attention_math.cuh"
#include "ptx_hopper.cuh"

// In Rust #[repr(C, align(64))]: two CUtensorMap, then AttentionParams; 384 bytes. Both maps: bf16, rank 2,
// sizes (columns, tokens), stride row * 2 bytes, box (64, 64), no interleave, SWIZZLE_128B, L2_PROMOTION_256B, NaN
// fill off. The columns of `qkv` are (heads + 2 kv_heads) D, those of `dout` heads D.
struct HopperAttentionParams {
    TensorMap qkv;
    TensorMap dout; // backward only
    AttentionParams a;
};

constexpr int PANEL = 64;      // columns of a panel
constexpr int BOX = 64;        // rows that one tensor copy brings
constexpr int BOX_BYTES = 8192;

// The place in a ring of STAGES buffers, and how often it went round.
template <int STAGES> struct Ring {
    int stage = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// ROWS rows of D columns, to panels; tells the barrier how many bytes will come.
template <int D, int ROWS>
__device__ __forceinline__ void copy_tile(unsigned to, const TensorMap* map, int column, int row, unsigned barrier) {
#pragma unroll
    for (int c = 0; c < D / PANEL; c++)
#pragma unroll
        for (int r = 0; r < ROWS / BOX; r++)
            copy_box(to + (c * (ROWS / BOX) + r) * BOX_BYTES, map, column + c * PANEL, row + r * BOX, barrier);
}

// 128-byte swizzle; rows in groups of 8 are 1024 bytes apart. `panels`: bytes from a panel to the next, of use only
// where the panel's columns are those of the product.
__device__ __forceinline__ Tile describe(unsigned address, int panels) {
    return (Tile)((address & 0x3ffff) >> 4) | (Tile)(panels >> 4) << 16 | (Tile)(1024 >> 4) << 32 | (Tile)1 << 62;
}


// d = a b^T over D columns: 64 rows of the tile at `a`, N rows of the tile at `b`. AROWS, BROWS: rows of a whole panel.
template <int D, int N, int AROWS, int BROWS>
__device__ __forceinline__ void product_transposed(float (&d)[N / 2], unsigned a, unsigned b) {
    Tile x = describe(a, 0), y = describe(b, 0);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma_shared<N>(d, x + (k / 4 * AROWS * 128 + k % 4 * 32) / 16, y + (k / 4 * BROWS * 128 + k % 4 * 32) / 16, k > 0);
}

// d += a b: a [64, ROWS] in registers, b the tile of ROWS rows and D columns at `b`.
template <int D, int ROWS>
__device__ __forceinline__ void product(float (&d)[D / 2], const unsigned (&a)[ROWS / 16][4], unsigned b) {
    Tile y = describe(b, ROWS * 128);
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) wgmma_registers<D>(d, a[k], y + k * 2048 / 16);
}

template <int N> __device__ __forceinline__ void as_operands(unsigned (&a)[N / 16][4], const float (&s)[N / 2]) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) as_operand(a[k], s, k);
}

// Item `round` of this block: rounds go forth and back over the blocks, so that no block has the heaviest of each.
__device__ __forceinline__ int item_of(int round) {
    return round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}
