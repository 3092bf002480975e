// Matrices in e4m3 with a scale a row, for cuBLASLt's fp8 products; and the transpose that the way back needs of a
// weight, since those products read both factors along their rows.
//
// Launch:
//   quantize_e4m3(const bf16 *x, long ld, int cols, u8 *q, f32 *scale)   rows x 256; q is [rows, cols] without gaps
//   transpose_bf16(const bf16 *x, long ld, int rows, int cols, bf16 *y)  (ceil(cols/64), ceil(rows/64)) x 256
// cols is a multiple of 16, x and ld whole multiples of 16 bytes. A value is q * scale[row]; the largest of a row is 448.
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

constexpr float LARGEST = 448.f;

struct alignas(16) Eight {
  __nv_bfloat162 v[4];
};

extern "C" __global__ void __launch_bounds__(256) quantize_e4m3(const bf16 *x, long ld, int cols, uint8_t *q,
                                                              float *scale) {
  const long row = blockIdx.x;
  const bf16 *from = x + row * ld;
  __nv_bfloat162 top = __float2bfloat162_rn(0.f);
  for (int i = threadIdx.x * 8; i < cols; i += 256 * 8) {
    const Eight e = *reinterpret_cast<const Eight *>(from + i);
#pragma unroll
    for (int j = 0; j < 4; j++) top = __hmax2(top, __habs2(e.v[j]));
  }
  float m = fmaxf(__low2float(top), __high2float(top));
  for (int o = 16; o > 0; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
  __shared__ float part[8];
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = m;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; i++) m = fmaxf(m, part[i]);
  // A row of zeros stays one.
  m = fmaxf(m, 1e-20f);
  const float up = LARGEST / m;
  if (threadIdx.x == 0) scale[row] = m / LARGEST;
  uint8_t *to = q + row * cols;
  for (int i = threadIdx.x * 8; i < cols; i += 256 * 8) {
    const Eight e = *reinterpret_cast<const Eight *>(from + i);
    uint16_t out[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float2 f = __bfloat1622float2(e.v[j]);
      out[j] = __nv_cvt_float2_to_fp8x2(make_float2(f.x * up, f.y * up), __NV_SATFINITE, __NV_E4M3);
    }
    *reinterpret_cast<uint2 *>(to + i) =
        make_uint2(uint32_t(out[0]) | uint32_t(out[1]) << 16, uint32_t(out[2]) | uint32_t(out[3]) << 16);
  }
}

extern "C" __global__ void __launch_bounds__(256) transpose_bf16(const bf16 *x, long ld, int rows, int cols, bf16 *y) {
  __shared__ bf16 tile[64][66];
  const int c0 = blockIdx.x * 64, r0 = blockIdx.y * 64, lane = threadIdx.x & 63, first = threadIdx.x >> 6;
  for (int r = first; r < 64; r += 4)
    if (r0 + r < rows && c0 + lane < cols) tile[r][lane] = x[(long)(r0 + r) * ld + c0 + lane];
  __syncthreads();
  for (int c = first; c < 64; c += 4)
    if (c0 + c < cols && r0 + lane < rows) y[(long)(c0 + c) * rows + r0 + lane] = tile[lane][c];
}
