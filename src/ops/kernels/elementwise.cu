// Everything between the matrix products: embedding rows, RMSNorm, rotary positions, gated activations, the loss over
// a chunk of logits, and the small copies that keep adapters beside the weights. bf16 in memory, f32 in registers.
//
// Rows may be longer than what is read of them: every matrix comes with its row stride `ld` in elements, a multiple of
// 8 so that a thread moves 16 bytes at a time.

#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

struct alignas(16) Eight {
  bf16 v[8];
};

__device__ __forceinline__ Eight load8(const bf16 *p) { return *reinterpret_cast<const Eight *>(p); }
__device__ __forceinline__ void store8(bf16 *p, const Eight &e) { *reinterpret_cast<Eight *>(p) = e; }

// Sum over the block's threads; every thread gets it. At most 1024 threads, whole warps.
template <int N> __device__ __forceinline__ void block_sum(float (&v)[N]) {
  __shared__ float part[N][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
#pragma unroll
  for (int i = 0; i < N; i++)
    for (int o = 16; o > 0; o >>= 1) v[i] += __shfl_xor_sync(~0u, v[i], o);
  __syncthreads();
  if (lane == 0)
#pragma unroll
    for (int i = 0; i < N; i++) part[i][warp] = v[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; i++) {
    float s = lane < warps ? part[i][lane] : 0.f;
    for (int o = 16; o > 0; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    v[i] = s;
  }
}

// out[t] = scale · table[ids[t]]: grid T.
extern "C" __global__ void embed(const bf16 *table, const uint32_t *ids, bf16 *out, int n, long out_ld, float scale) {
  const long t = blockIdx.x;
  const bf16 *from = table + (long)ids[t] * n;
  for (int i = threadIdx.x * 8; i < n; i += blockDim.x * 8) {
    Eight e = load8(from + i);
    if (scale != 1.f)
#pragma unroll
      for (int j = 0; j < 8; j++) e.v[j] = __float2bfloat16(__bfloat162float(e.v[j]) * scale);
    store8(out + t * out_ld + i, e);
  }
}

// y[t] = x[rows ? rows[t] : t] / rms · w: grid T; a row in P rounds of 8 · blockDim numbers, held in registers.
template <int P>
__device__ __forceinline__ void norm(const bf16 *x, long x_ld, const float *w, bf16 *y, long y_ld, int n, float eps,
                                     const uint32_t *rows) {
  const long t = blockIdx.x, from = rows ? rows[t] : t;
  Eight e[P];
  float s[1] = {0.f};
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int i = (p * blockDim.x + threadIdx.x) * 8;
    if (i >= n) break;
    e[p] = load8(x + from * x_ld + i);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float f = __bfloat162float(e[p].v[j]);
      s[0] += f * f;
    }
  }
  block_sum(s);
  const float r = rsqrtf(s[0] / n + eps);
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int i = (p * blockDim.x + threadIdx.x) * 8;
    if (i >= n) break;
    const float4 a = *(const float4 *)(w + i), b = *(const float4 *)(w + i + 4);
    const float ws[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    Eight o;
#pragma unroll
    for (int j = 0; j < 8; j++) o.v[j] = __float2bfloat16(__bfloat162float(e[p].v[j]) * r * ws[j]);
    store8(y + t * y_ld + i, o);
  }
}

// d[row] += d(rms_norm)ᵀ · dy[t], with row = rows ? rows[t] : t of both x and d: grid T.
template <int P>
__device__ __forceinline__ void norm_backward(const bf16 *dy, long dy_ld, const bf16 *x, long x_ld, const float *w,
                                              bf16 *d, long d_ld, int n, float eps, const uint32_t *rows) {
  const long t = blockIdx.x, at = rows ? rows[t] : t;
  Eight e[P], g[P], o[P];
  float s[2] = {0.f, 0.f};
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int i = (p * blockDim.x + threadIdx.x) * 8;
    if (i >= n) break;
    e[p] = load8(x + at * x_ld + i);
    g[p] = load8(dy + t * dy_ld + i);
    o[p] = load8(d + at * d_ld + i);
    const float4 a = *(const float4 *)(w + i), b = *(const float4 *)(w + i + 4);
    const float ws[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float f = __bfloat162float(e[p].v[j]);
      s[0] += f * f;
      s[1] += f * __bfloat162float(g[p].v[j]) * ws[j];
    }
  }
  block_sum(s);
  const float r = rsqrtf(s[0] / n + eps), k = s[1] * r * r / n;
#pragma unroll
  for (int p = 0; p < P; p++) {
    const int i = (p * blockDim.x + threadIdx.x) * 8;
    if (i >= n) break;
    const float4 a = *(const float4 *)(w + i), b = *(const float4 *)(w + i + 4);
    const float ws[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float f = __bfloat162float(e[p].v[j]), h = __bfloat162float(g[p].v[j]) * ws[j];
      o[p].v[j] = __float2bfloat16(__bfloat162float(o[p].v[j]) + r * (h - f * k));
    }
    store8(d + at * d_ld + i, o[p]);
  }
}

#define NORMS(P)                                                                                                        \
  extern "C" __global__ void __launch_bounds__(512) rms_norm_##P(const bf16 *x, long x_ld, const float *w, bf16 *y,     \
                                                                 long y_ld, int n, float eps, const uint32_t *rows) {   \
    norm<P>(x, x_ld, w, y, y_ld, n, eps, rows);                                                                         \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(512)                                                                     \
      rms_norm_backward_##P(const bf16 *dy, long dy_ld, const bf16 *x, long x_ld, const float *w, bf16 *d, long d_ld,   \
                            int n, float eps, const uint32_t *rows) {                                                   \
    norm_backward<P>(dy, dy_ld, x, x_ld, w, d, d_ld, n, eps, rows);                                                     \
  }

NORMS(1)
NORMS(2)
NORMS(4)
NORMS(8)

// Turns `heads` heads of width d in place, halves paired as Llama pairs them; `sign` -1 turns back: grid T.
// Angles of position p are at angles[p · d/2 ..], cosine and sine side by side.
extern "C" __global__ void rope(bf16 *x, long ld, const uint32_t *positions, const float2 *angles, int heads, int d,
                                float sign) {
  const long t = blockIdx.x;
  const int half = d / 2, eights = half / 8;
  const float2 *a = angles + (long)positions[t] * half;
  for (int u = threadIdx.x; u < heads * eights; u += blockDim.x) {
    const int i = u % eights * 8;
    bf16 *p = x + t * ld + (long)(u / eights) * d + i;
    Eight low = load8(p), high = load8(p + half);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float2 cs = a[i + j];
      const float l = __bfloat162float(low.v[j]), h = __bfloat162float(high.v[j]), s = sign * cs.y;
      low.v[j] = __float2bfloat16(l * cs.x - h * s);
      high.v[j] = __float2bfloat16(h * cs.x + l * s);
    }
    store8(p, low);
    store8(p + half, high);
  }
}

struct Gate {
  float value, slope;
};

// The gate's activation and its derivative: 0 silu, 1 gelu by tanh.
__device__ __forceinline__ Gate gate(float g, int kind) {
  if (kind == 0) {
    const float s = __fdividef(1.f, 1.f + __expf(-g));
    return {g * s, s * (1.f + g * (1.f - s))};
  }
  const float c = 0.7978845608f, k = 0.044715f;
  const float u = tanhf(c * (g + k * g * g * g));
  return {0.5f * g * (1.f + u), 0.5f * (1.f + u) + 0.5f * g * (1.f - u * u) * c * (1.f + 3.f * k * g * g)};
}

// Two pieces a thread, so that more is on its way at a time.
#define ROUNDS 2

// act[t, i] = activation(gu[t, i]) · gu[t, f + i]: grid (pieces of f, T).
extern "C" __global__ void __launch_bounds__(256) swiglu(const bf16 *gu, long gu_ld, bf16 *act, long act_ld, int f,
                                                         int kind) {
  const long t = blockIdx.y;
  const int first = (blockIdx.x * ROUNDS * blockDim.x + threadIdx.x) * 8, step = blockDim.x * 8;
  Eight g[ROUNDS], u[ROUNDS];
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const int i = first + k * step;
    if (i >= f) break;
    g[k] = load8(gu + t * gu_ld + i);
    u[k] = load8(gu + t * gu_ld + f + i);
  }
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const int i = first + k * step;
    if (i >= f) break;
    Eight o;
#pragma unroll
    for (int j = 0; j < 8; j++)
      o.v[j] = __float2bfloat16(gate(__bfloat162float(g[k].v[j]), kind).value * __bfloat162float(u[k].v[j]));
    store8(act + t * act_ld + i, o);
  }
}

// Both ways at once: gu becomes its own gradient given dact, and act is written for the gradient of what reads it.
// grid (pieces of f, T).
extern "C" __global__ void __launch_bounds__(256) swiglu_backward(bf16 *gu, long gu_ld, const bf16 *dact, long dact_ld,
                                                                  bf16 *act, long act_ld, int f, int kind) {
  const long t = blockIdx.y;
  const int first = (blockIdx.x * ROUNDS * blockDim.x + threadIdx.x) * 8, step = blockDim.x * 8;
  Eight g[ROUNDS], u[ROUNDS], d[ROUNDS];
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const int i = first + k * step;
    if (i >= f) break;
    g[k] = load8(gu + t * gu_ld + i);
    u[k] = load8(gu + t * gu_ld + f + i);
    d[k] = load8(dact + t * dact_ld + i);
  }
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const int i = first + k * step;
    if (i >= f) break;
    Eight o;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float up = __bfloat162float(u[k].v[j]), dj = __bfloat162float(d[k].v[j]);
      const Gate a = gate(__bfloat162float(g[k].v[j]), kind);
      o.v[j] = __float2bfloat16(a.value * up);
      g[k].v[j] = __float2bfloat16(dj * up * a.slope);
      u[k].v[j] = __float2bfloat16(dj * a.value);
    }
    store8(act + t * act_ld + i, o);
    store8(gu + t * gu_ld + i, g[k]);
    store8(gu + t * gu_ld + f + i, u[k]);
  }
}

// Rows of logits to their negative log-likelihood, and (where scale is not 0) in place to scale · its gradient:
// grid rows. `v` logits a row; the row goes on to the next multiple of 8, and what stands there becomes 0.
//
// With `weights` a row's gradient is that of weights[row] · nll. With `cap` the logits have been through `softcap`, whose
// slope their gradient takes too.
extern "C" __global__ void cross_entropy(bf16 *logits, long ld, const uint32_t *labels, float *nll, int v, float scale,
                                         float cap, const float *weights) {
  bf16 *l = logits + (long)blockIdx.x * ld;
  const uint32_t label = labels[blockIdx.x];
  const float log2e = 1.44269504f;
  const float at = __bfloat162float(l[label]);
  float top = -INFINITY, sum = 0.f;
  for (int i = threadIdx.x * 8; i < v; i += blockDim.x * 8) {
    Eight e = load8(l + i);
    if (i + 8 > v)
      for (int j = v - i; j < 8; j++) e.v[j] = __float2bfloat16(-INFINITY);
    float m = top;
#pragma unroll
    for (int j = 0; j < 8; j++) m = fmaxf(m, __bfloat162float(e.v[j]));
    sum *= exp2f((top - m) * log2e);
    // A lane whose every logit so far is -inf has added nothing.
    if (m == -INFINITY) { sum = 0.f; continue; }
#pragma unroll
    for (int j = 0; j < 8; j++) sum += exp2f((__bfloat162float(e.v[j]) - m) * log2e);
    top = m;
  }
  __shared__ float tops[32], sums[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  auto join = [&](float m2, float s2) {
    const float m = fmaxf(top, m2);
    if (m == -INFINITY) return;
    sum = sum * exp2f((top - m) * log2e) + s2 * exp2f((m2 - m) * log2e);
    top = m;
  };
  for (int o = 16; o > 0; o >>= 1) {
    const float m2 = __shfl_xor_sync(~0u, top, o), s2 = __shfl_xor_sync(~0u, sum, o);
    join(m2, s2);
  }
  if (lane == 0) { tops[warp] = top; sums[warp] = sum; }
  __syncthreads();
  top = lane < warps ? tops[lane] : -INFINITY;
  sum = lane < warps ? sums[lane] : 0.f;
  for (int o = 16; o > 0; o >>= 1) {
    const float m2 = __shfl_xor_sync(~0u, top, o), s2 = __shfl_xor_sync(~0u, sum, o);
    join(m2, s2);
  }
  if (threadIdx.x == 0) nll[blockIdx.x] = top + logf(sum) - at;
  if (scale == 0.f) return;
  if (weights) scale *= weights[blockIdx.x];
  const float k = scale / sum;
  for (int i = threadIdx.x * 8; i < v; i += blockDim.x * 8) {
    Eight e = load8(l + i);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float d = i + j < v ? k * exp2f((__bfloat162float(e.v[j]) - top) * log2e) : 0.f;
      if (i + j == label) d -= scale;
      if (cap > 0.f) {
        const float u = __bfloat162float(e.v[j]) / cap;
        d *= i + j < v ? 1.f - u * u : 0.f;
      }
      e.v[j] = __float2bfloat16(d);
    }
    store8(l + i, e);
  }
}

// logits become cap · tanh(logits / cap): grid (pieces of v, rows).
extern "C" __global__ void softcap(bf16 *logits, long ld, int v, float cap) {
  bf16 *l = logits + (long)blockIdx.y * ld;
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= v) return;
  Eight e = load8(l + i);
#pragma unroll
  for (int j = 0; j < 8; j++) e.v[j] = __float2bfloat16(cap * tanhf(__bfloat162float(e.v[j]) / cap));
  store8(l + i, e);
}

// out[row] = entropy of softmax(logits[row]) in nats: grid rows, 1024 threads.
extern "C" __global__ void entropy(const bf16 *logits, long ld, int v, float *out) {
  const bf16 *l = logits + (long)blockIdx.x * ld;
  __shared__ float part[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float top = -INFINITY;
  for (int i = threadIdx.x; i < v; i += blockDim.x) top = fmaxf(top, __bfloat162float(l[i]));
  for (int o = 16; o > 0; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
  if (lane == 0) part[warp] = top;
  __syncthreads();
  for (int w = 0; w < (int)blockDim.x / 32; w++) top = fmaxf(top, part[w]);
  __syncthreads();
  float s[2] = {0.f, 0.f};
  for (int i = threadIdx.x; i < v; i += blockDim.x) {
    const float x = __bfloat162float(l[i]) - top, p = __expf(x);
    s[0] += p;
    if (p > 0.f) s[1] += p * x;
  }
  block_sum(s);
  if (threadIdx.x == 0) out[blockIdx.x] = logf(s[0]) - s[1] / s[0];
}

// y = a + b [T, n]: grid T.
extern "C" __global__ void add(const bf16 *a, long a_ld, const bf16 *b, long b_ld, bf16 *y, long y_ld, int n) {
  const long t = blockIdx.x;
  for (int i = threadIdx.x * 8; i < n; i += blockDim.x * 8) {
    Eight p = load8(a + t * a_ld + i);
    const Eight q = load8(b + t * b_ld + i);
#pragma unroll
    for (int j = 0; j < 8; j++) p.v[j] = __float2bfloat16(__bfloat162float(p.v[j]) + __bfloat162float(q.v[j]));
    store8(y + t * y_ld + i, p);
  }
}

// Every head of width d normalised by itself, in place: the first `heads` with wq, `kv` more with wk; 1/rms to
// rstd [T, heads + kv]: grid T, whole warps.
extern "C" __global__ void head_norm(bf16 *x, long ld, const float *wq, const float *wk, float *rstd, int heads, int kv,
                                     int d, float eps) {
  const long t = blockIdx.x;
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int h = threadIdx.x >> 5; h < heads + kv; h += warps) {
    bf16 *p = x + t * ld + (long)h * d;
    const float *w = h < heads ? wq : wk;
    float s = 0.f;
    for (int i = lane; i < d; i += 32) {
      const float f = __bfloat162float(p[i]);
      s += f * f;
    }
    for (int o = 16; o > 0; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    const float r = rsqrtf(s / d + eps);
    if (lane == 0) rstd[t * (heads + kv) + h] = r;
    for (int i = lane; i < d; i += 32) p[i] = __float2bfloat16(__bfloat162float(p[i]) * r * w[i]);
  }
}

// dx, the gradient by what head_norm gave, becomes that by what it took; y is what it gave: grid T, whole warps.
extern "C" __global__ void head_norm_backward(bf16 *dx, long dx_ld, const bf16 *y, long y_ld, const float *wq,
                                              const float *wk, const float *rstd, int heads, int kv, int d) {
  const long t = blockIdx.x;
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int h = threadIdx.x >> 5; h < heads + kv; h += warps) {
    bf16 *g = dx + t * dx_ld + (long)h * d;
    const bf16 *p = y + t * y_ld + (long)h * d;
    const float *w = h < heads ? wq : wk;
    float s = 0.f;
    for (int i = lane; i < d; i += 32) s += __bfloat162float(g[i]) * __bfloat162float(p[i]);
    for (int o = 16; o > 0; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    s /= d;
    const float r = rstd[t * (heads + kv) + h];
    for (int i = lane; i < d; i += 32) {
      const float x = w[i] != 0.f ? __bfloat162float(p[i]) / w[i] : 0.f;
      g[i] = __float2bfloat16(r * (w[i] * __bfloat162float(g[i]) - x * s));
    }
  }
}

// total[0] += Σ v, in an order that never changes: one block of 1024.
extern "C" __global__ void add_up(const float *v, int n, double *total) {
  __shared__ double part[1024];
  double s = 0;
  for (int i = threadIdx.x; i < n; i += 1024) s += v[i];
  part[threadIdx.x] = s;
  for (int o = 512; o > 0; o >>= 1) {
    __syncthreads();
    if (threadIdx.x < o) part[threadIdx.x] += part[threadIdx.x + o];
  }
  if (threadIdx.x == 0) total[0] += part[0];
}

// One trainable matrix on its way from the f32 arena to its bf16 place.
struct Spread {
  long from;      // first number in the arena
  int rows, cols;
  bf16 *to;
  long ld;
};

// grid (pieces, entries).
extern "C" __global__ void spread(const float *arena, const Spread *entries) {
  const Spread e = entries[blockIdx.y];
  const long n = (long)e.rows * e.cols;
  for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < n; i += (long)gridDim.x * blockDim.x)
    e.to[i / e.cols * e.ld + i % e.cols] = __float2bfloat16(arena[e.from + i]);
}

// Columns from..to of every row: 0, the first of them `first`: grid ceil(rows / 256).
extern "C" __global__ void tails(bf16 *x, long ld, int rows, int from, int to, float first) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= rows) return;
  for (int i = from; i < to; i++) x[t * ld + i] = __float2bfloat16(i == from ? first : 0.f);
}

// Philox4x32-10, as in ops/random.rs.
__device__ __forceinline__ uint4 philox(uint4 c, uint2 k) {
#pragma unroll
  for (int i = 0; i < 10; i++) {
    const uint64_t a = (uint64_t)c.x * 0xD2511F53u, b = (uint64_t)c.z * 0xCD9E8D57u;
    c = make_uint4((uint32_t)(b >> 32) ^ c.y ^ k.x, (uint32_t)b, (uint32_t)(a >> 32) ^ c.w ^ k.y, (uint32_t)a);
    k = make_uint2(k.x + 0x9E3779B9u, k.y + 0xBB67AE85u);
  }
  return c;
}

// Uniform on ±bound, the numbers that Stream::fill_uniform draws for a row-major [rows, cols]: one thread a row piece.
extern "C" __global__ void fill_uniform(bf16 *x, long ld, long rows, int cols, float bound, uint64_t seed, uint32_t word) {
  const long n4 = rows * cols / 4;
  for (long b = blockIdx.x * (long)blockDim.x + threadIdx.x; b < n4; b += (long)gridDim.x * blockDim.x) {
    const uint4 w = philox(make_uint4((uint32_t)b, word, (uint32_t)(b >> 32), 0), make_uint2((uint32_t)seed, (uint32_t)(seed >> 32)));
    const uint32_t u[4] = {w.x, w.y, w.z, w.w};
    const long at = b * 4;
    bf16 *p = x + at / cols * ld + at % cols;
#pragma unroll
    for (int j = 0; j < 4; j++) p[j] = __float2bfloat16(((u[j] >> 8) / 8388608.f - 1.f) * bound);
  }
}

// The next token of each sequence: the largest of logit / temperature + Gumbel noise (temperature 0: the largest
// logit): grid sequences, 1024 threads. Position `steps[b]` of stream b keeps draws apart.
extern "C" __global__ void pick(const bf16 *logits, long ld, int v, float inverse_temperature, uint64_t seed,
                                const int *lengths, uint32_t *ids) {
  const bf16 *l = logits + (long)blockIdx.x * ld;
  float best = -INFINITY;
  int where = 0;
  for (int i = threadIdx.x; i < v; i += blockDim.x) {
    float s = __bfloat162float(l[i]);
    if (inverse_temperature > 0.f) {
      const uint4 w = philox(make_uint4(i, lengths[blockIdx.x], blockIdx.x, 7), make_uint2((uint32_t)seed, (uint32_t)(seed >> 32)));
      s = s * inverse_temperature - __logf(-__logf(((w.x >> 8) + 0.5f) / 16777216.f));
    }
    if (s > best) { best = s; where = i; }
  }
  __shared__ float bests[32];
  __shared__ int wheres[32];
  auto keep = [&](float b2, int w2) { if (b2 > best || (b2 == best && w2 < where)) { best = b2; where = w2; } };
  for (int o = 16; o > 0; o >>= 1) {
    const float b2 = __shfl_xor_sync(~0u, best, o);
    const int w2 = __shfl_xor_sync(~0u, where, o);
    keep(b2, w2);
  }
  if ((threadIdx.x & 31) == 0) { bests[threadIdx.x >> 5] = best; wheres[threadIdx.x >> 5] = where; }
  __syncthreads();
  if (threadIdx.x < 32) {
    const int warps = blockDim.x >> 5;
    best = threadIdx.x < warps ? bests[threadIdx.x] : -INFINITY;
    where = threadIdx.x < warps ? wheres[threadIdx.x] : 0;
    for (int o = 16; o > 0; o >>= 1) {
      const float b2 = __shfl_xor_sync(~0u, best, o);
      const int w2 = __shfl_xor_sync(~0u, where, o);
      keep(b2, w2);
    }
    if (threadIdx.x == 0) ids[blockIdx.x] = where;
  }
}

// Lengths (and the positions read from them) one further: one block.
extern "C" __global__ void advance(int *lengths, uint32_t *positions, int n) {
  const int i = threadIdx.x;
  if (i < n) { lengths[i] += 1; positions[i] = lengths[i]; }
}

// A block of a matrix to 0: grid ceil(rows / 8), 256 threads; `cols` at most 32 a round.
extern "C" __global__ void clear_block(bf16 *x, long ld, int rows, int cols) {
  const int t = blockIdx.x * 8 + threadIdx.x / 32;
  if (t >= rows) return;
  for (int i = threadIdx.x % 32; i < cols; i += 32) x[t * ld + i] = __float2bfloat16(0.f);
}

// A vector into a column: grid ceil(rows / 256).
extern "C" __global__ void copy_column(const bf16 *from, bf16 *to, long ld, int rows) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t < rows) to[t * ld] = from[t];
}

// A narrow block of one matrix into another: grid ceil(rows · cols / 256).
extern "C" __global__ void copy_block(const bf16 *from, long from_ld, bf16 *to, long to_ld, int rows, int cols) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= rows * cols) return;
  to[(long)(i / cols) * to_ld + i % cols] = from[(long)(i / cols) * from_ld + i % cols];
}
