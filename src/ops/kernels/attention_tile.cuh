// Tiles of the kernels that run from compute capability 8.0 on: rows in shared memory, products by mma.sync.
// A row of D elements takes D + 8, so that eight rows at one column lie in different banks.

#pragma once
#include "attention_math.cuh"

// Rows [first, first + ROWS) of a matrix to shared memory, zeros from row `end` on.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_rows(unsigned to, const bf16* from, long long row, int first, int end) {
    constexpr int CHUNKS = D / 8;
    static_assert(D % 8 == 0, "rows come in 16 bytes");
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        int r = i / CHUNKS, c = i % CHUNKS;
        bool valid = first + r < end;
        copy_async(to + (r * (D + 8) + c * 8) * 2, from + (valid ? first + r : first) * row + c * 8, valid);
    }
}

// Left operand: rows [row, row + 16), columns [16 k, 16 k + 16).
template <int D> __device__ __forceinline__ void left(unsigned (&a)[4], unsigned tile, int row, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix(a, tile + ((row + lane % 16) * (D + 8) + k * 16 + lane / 16 * 8) * 2);
}

// Right operand of a product with the transpose: rows [row, row + 16) are columns of the result, two of 8.
template <int D> __device__ __forceinline__ void right_transposed(unsigned (&b)[4], unsigned tile, int row, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix(b, tile + ((row + lane % 8 + lane / 16 * 8) * (D + 8) + k * 16 + lane / 8 % 2 * 8) * 2);
}

// Right operand: rows [16 k, 16 k + 16) are summed over, columns [column, column + 16) are the result's.
template <int D> __device__ __forceinline__ void right(unsigned (&b)[4], unsigned tile, int k, int column) {
    int lane = threadIdx.x % 32;
    ldmatrix_transposed(b, tile + ((k * 16 + lane % 16) * (D + 8) + column + lane / 16 * 8) * 2);
}

// s = a b^T: `M` times 16 rows of `a` from `row` on, N rows of `b`, over D columns.
template <int D, int M, int N>
__device__ __forceinline__ void scores(float (&s)[M][N / 2], unsigned a, int row, unsigned b) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < N / 2; i++) s[m][i] = 0.f;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned x[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) left<D>(x[m], a, row + 16 * m, k);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            unsigned y[4];
            right_transposed<D>(y, b, 16 * n, k);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma((float(&)[4])s[m][8 * n], x[m], y[0], y[1]);
                mma((float(&)[4])s[m][8 * n + 4], x[m], y[2], y[3]);
            }
        }
    }
}

// sums += s b: s [16 M, N] from accumulators, b [N, D] in shared memory, of which columns [from, from + COLUMNS).
template <int D, int M, int N, int COLUMNS>
__device__ __forceinline__ void accumulate(float (&sums)[M][COLUMNS / 2], const float (&s)[M][N / 2], unsigned b,
                                           int from) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        unsigned x[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) as_operand(x[m], s[m], k);
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; n++) {
            unsigned y[4];
            right<D>(y, b, k, from + 16 * n);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma((float(&)[4])sums[m][8 * n], x[m], y[0], y[1]);
                mma((float(&)[4])sums[m][8 * n + 4], x[m], y[2], y[3]);
            }
        }
    }
}

// Accumulators of a warp's 16 rows to bf16 rows in global memory, times a factor for each of the thread's two rows.
template <int N>
__device__ __forceinline__ void store_rows(bf16* to, long long row, int first, int end, const float (&s)[N],
                                           float upper, float lower) {
    int lane = threadIdx.x % 32, r = first + lane / 4;
    bf16* at = to + r * row + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < N / 4; j++) {
        if (r < end) *(unsigned*)(at + 8 * j) = pack(s[4 * j] * upper, s[4 * j + 1] * upper);
        if (r + 8 < end) *(unsigned*)(at + 8 * row + 8 * j) = pack(s[4 * j + 2] * lower, s[4 * j + 3] * lower);
    }
}

// The same to f32 rows.
template <int N>
__device__ __forceinline__ void store_rows(float* to, long long row, int first, int end, const float (&s)[N],
                                           float factor) {
    int lane = threadIdx.x % 32, r = first + lane / 4;
    float* at = to + r * row + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < N / 4; j++) {
        if (r < end) *(float2*)(at + 8 * j) = make_float2(s[4 * j] * factor, s[4 * j + 1] * factor);
        if (r + 8 < end) *(float2*)(at + 8 * row + 8 * j) = make_float2(s[4 * j + 2] * factor, s[4 * j + 3] * factor);
    }
}
