"""The CUDA attention kernels against float64 PyTorch, and their speed against PyTorch's own, on a machine with a card.

usage: python tests/reference/attention_cuda.py FOLDER [check] [time]

FOLDER has the fatbins of src/ops/kernels/attention*.cu. Every check draws fresh random inputs, fills what the kernel
is to write with NaN, and prints the largest error over the largest value of the reference, beside it (in brackets)
what PyTorch's own bf16 attention errs by on the same inputs. It fails above 1e-2.
"""
import ctypes
import math
import pathlib
import struct
import sys

import torch

LIMIT = 1e-2
HEAD_SIZES = (64, 80, 96, 128, 256)
HOPPER_SIZES = (64, 128)


class Kernels:
    """Fatbins loaded through the driver, into PyTorch's context."""

    device = "cuda"

    def __init__(self, folder):
        torch.zeros(1, device="cuda")
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.functions, self.modules = {}, []
        for path in sorted(pathlib.Path(folder).glob("*.fatbin")):
            module = ctypes.c_void_p()
            self.check(self.cuda.cuModuleLoadData(ctypes.byref(module), path.read_bytes()), path)
            self.modules.append(module)
        self.multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
        self.hopper = torch.cuda.get_device_capability() == (9, 0)

    def check(self, code, what):
        if code != 0:
            raise RuntimeError(f"{what}: CUDA error {code}")

    def function(self, name, shared):
        if (name, shared) not in self.functions:
            f = ctypes.c_void_p()
            for module in self.modules:
                if self.cuda.cuModuleGetFunction(ctypes.byref(f), module, name.encode()) == 0:
                    break
            else:
                raise RuntimeError(f"no kernel {name}")
            self.check(self.cuda.cuFuncSetAttribute(f, 8, shared), f"{name}: {shared} bytes of shared memory")
            self.functions[name, shared] = f
        return self.functions[name, shared]

    def launch(self, name, grid, threads, shared, params):
        f = self.function(name, shared)
        block = ctypes.create_string_buffer(params, len(params))
        args = (ctypes.c_void_p * 1)(ctypes.addressof(block))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.check(self.cuda.cuLaunchKernel(f, *grid, threads, 1, 1, shared, stream, args, None), name)

    def tensor_map(self, x, columns, box=(64, 64)):
        """A bf16 matrix [rows, row] of which the first `columns` matter, for boxes of `box` columns and rows."""
        raw = ctypes.create_string_buffer(128 + 64)
        at = (ctypes.addressof(raw) + 63) // 64 * 64
        sizes = (ctypes.c_uint64 * 2)(columns, x.shape[0])
        strides = (ctypes.c_uint64 * 1)(x.stride(0) * 2)
        self.check(self.cuda.cuTensorMapEncodeTiled(
            ctypes.c_void_p(at), 9, 2, ctypes.c_void_p(x.data_ptr()), sizes, strides, (ctypes.c_uint32 * 2)(*box),
            (ctypes.c_uint32 * 2)(1, 1), 0, 3, 3, 0), "cuTensorMapEncodeTiled")
        return ctypes.string_at(at, 128)


class Shape:
    def __init__(self, lengths, heads, kv_heads, d, window=0, softcap=0.0, pad=0):
        self.lengths, self.heads, self.kv_heads, self.d = lengths, heads, kv_heads, d
        self.window, self.softcap, self.pad, self.scale = window, softcap, pad, d ** -0.5
        self.tokens, self.row = sum(lengths), (heads + 2 * kv_heads) * d

    def __str__(self):
        n = self.lengths if len(self.lengths) < 6 else f"{len(self.lengths)} of {self.lengths[0]}"
        return f"D {self.d} H {self.heads}/{self.kv_heads} lengths {n} window {self.window} cap {self.softcap:g} pad {self.pad}"

    def tiles(self, size, work):
        """(start, end, first, 0) for each `size` tokens of each sequence, those with most `work` first."""
        all, at = [], 0
        for n in self.lengths:
            all += [(at, at + n, at + i, 0) for i in range(0, n, size)]
            at += n
        return sorted(all, key=work, reverse=True)

    def query_tiles(self, size):
        def work(t):
            seen = t[2] + size - t[0]
            return min(seen, self.window + size) if self.window else seen
        return self.tiles(size, work)

    def key_tiles(self, size):
        def work(t):
            seen = t[1] - t[2]
            return min(seen, self.window + size) if self.window else seen
        return self.tiles(size, work)


class Run:
    """One set of inputs and the kernels over it."""

    def __init__(self, kernels, shape, splits=1):
        self.k, self.s, self.splits = kernels, shape, splits
        s, dev = shape, kernels.device

        def rows(columns):
            return torch.full((s.tokens, columns + s.pad), math.nan, dtype=torch.bfloat16, device=dev)
        self.qkv, self.dout = rows(s.row), rows(s.heads * s.d)
        self.out, self.dqkv = rows(s.heads * s.d), rows(s.row)
        self.qkv[:, :s.row] = torch.randn(s.tokens, s.row, device=dev).bfloat16()
        self.dout[:, :s.heads * s.d] = torch.randn(s.tokens, s.heads * s.d, device=dev).bfloat16()
        self.lse = torch.full((s.heads, s.tokens), math.nan, device=dev)
        self.delta = torch.full((s.heads, s.tokens), math.nan, device=dev)
        self.partial = torch.full((splits if splits > 1 else 0, s.tokens, 2 * s.kv_heads * s.d), math.nan, device=dev)
        self.lists, self.calls = {}, {}

    def poison(self):
        for t in (self.out, self.dqkv, self.lse, self.delta, self.partial):
            t.fill_(math.nan)

    def list(self, tiles):
        return torch.tensor(tiles, dtype=torch.int32, device=self.k.device)

    def params(self, tiles, hopper):
        s = self.s
        base = struct.pack("8Q4q6i2f", *(t.data_ptr() for t in (
            self.qkv, self.out, self.lse, self.dout, self.delta, self.dqkv, self.partial, tiles)),
            *(t.stride(0) for t in (self.qkv, self.out, self.dout, self.dqkv)),
            s.tokens, s.heads, s.kv_heads, len(tiles), s.window, self.splits, s.scale, s.softcap)
        if not hopper:
            return base
        return self.k.tensor_map(self.qkv, s.row) + self.k.tensor_map(self.dout, s.heads * s.d) + base

    def call(self, key, make):
        """Tile lists and parameters are made once: the timings are the kernels'."""
        if key not in self.calls:
            self.calls[key] = make()
        self.k.launch(*self.calls[key][:-1])

    def forward(self, kind=""):
        d, heads = self.s.d, self.s.heads

        def make():
            size = 64 if d == 256 else 128
            tiles = self.list(self.s.query_tiles(size))
            if kind:
                stages, keys = 2, 128
                shared = (size + 2 * stages * keys) * d * 2 + 16 + 32 * stages
                grid = (min(self.k.multiprocessors, heads * len(tiles)), 1, 1)
                return f"attention_fwd_{d}_hopper", grid, 384, shared, self.params(tiles, True), tiles
            return f"attention_fwd_{d}", (heads, len(tiles), 1), 128, (size + 128) * (d + 8) * 2, self.params(tiles, False), tiles
        self.call(("forward", kind), make)

    def backward(self, kind=""):
        s, d = self.s, self.s.d
        columns = s.kv_heads * self.splits
        rows = s.tokens * s.heads

        def make_delta():
            none = self.list([(0, 0, 0, 0)])
            return f"attention_delta_{d}", ((rows + 15) // 16, 1, 1), 128, 0, self.params(none, False), none

        def make_dq():
            tiles = self.list(s.query_tiles(128 if kind else 64))
            if kind:
                keys, stages = 128, 2
                shared = (256 + 2 * stages * keys) * d * 2 + 16 + 32 * stages
                grid = (min(self.k.multiprocessors, s.heads * len(tiles)), 1, 1)
                return f"attention_dq_{d}_hopper", grid, 384, shared, self.params(tiles, True), tiles
            shared = (128 + 2 * (32 if d == 256 else 64)) * (d + 8) * 2
            return f"attention_dq_{d}", (s.heads, len(tiles), 1), 128, shared, self.params(tiles, False), tiles

        def make_dkv():
            tiles = self.list(s.key_tiles(128 if kind else 64))
            if kind:
                queries, stages = 64, 3
                shared = (256 + 2 * stages * queries) * d * 2 + stages * queries * 8 + 16 + 16 * stages
                grid = (min(self.k.multiprocessors, columns * len(tiles)), 1, 1)
                return f"attention_dkv_{d}_hopper", grid, 384, shared, self.params(tiles, True), tiles
            queries = {64: 64, 256: 16}.get(d, 32)
            return (f"attention_dkv_{d}", (columns, len(tiles), 2 if d == 256 else 1), 128,
                    (128 + 4 * queries) * (d + 8) * 2, self.params(tiles, False), tiles)

        def make_sum():
            none = self.list([(0, 0, 0, 0)])
            return f"attention_dkv_sum_{d}", (s.tokens, 1, 1), 128, 0, self.params(none, False), none
        self.call("delta", make_delta)
        self.call(("dq", kind), make_dq)
        self.call(("dkv", kind), make_dkv)
        if self.splits > 1:
            self.call("sum", make_sum)


def reference(run, dtype=torch.float64):
    """out, lse [heads, tokens], gradients [tokens, row], one sequence at a time."""
    s = run.s
    out = torch.zeros(s.tokens, s.heads * s.d, dtype=dtype, device=run.qkv.device)
    lse = torch.zeros(s.heads, s.tokens, dtype=dtype, device=run.qkv.device)
    grad = torch.zeros(s.tokens, s.row, dtype=dtype, device=run.qkv.device)
    at = 0
    for n in s.lengths:
        x = run.qkv[at:at + n, :s.row].to(dtype).requires_grad_()
        q, k, v = x.view(n, -1, s.d).transpose(0, 1).split([s.heads, s.kv_heads, s.kv_heads])
        k, v = (t.repeat_interleave(s.heads // s.kv_heads, 0) for t in (k, v))
        score = q @ k.transpose(1, 2) * s.scale
        if s.softcap:
            score = s.softcap * torch.tanh(score / s.softcap)
        i = torch.arange(n, device=x.device)
        seen = i[None, :] <= i[:, None]
        if s.window:
            seen &= i[None, :] > i[:, None] - s.window
        score = score.masked_fill(~seen, -math.inf)
        y = (torch.softmax(score, -1) @ v).transpose(0, 1).reshape(n, -1)
        y.backward(run.dout[at:at + n, :s.heads * s.d].to(dtype))
        out[at:at + n], lse[:, at:at + n], grad[at:at + n] = y.detach(), torch.logsumexp(score, -1).detach(), x.grad
        at += n
    return out, lse, grad


def torch_own(run):
    """out and gradients of PyTorch's bf16 attention, where it has these options."""
    s = run.s
    if s.window or s.softcap:
        return None
    outs, grads, at = [], [], 0
    for n in s.lengths:
        x = run.qkv[at:at + n, :s.row].clone().requires_grad_()
        q, k, v = (t[None] for t in x.view(n, -1, s.d).transpose(0, 1).split([s.heads, s.kv_heads, s.kv_heads]))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        y = y[0].transpose(0, 1).reshape(n, -1)
        y.backward(run.dout[at:at + n, :s.heads * s.d])
        outs.append(y.detach())
        grads.append(x.grad)
        at += n
    return torch.cat(outs), torch.cat(grads)


def error(x, ref):
    e = (x.to(ref.dtype) - ref).abs().max().item() / max(ref.abs().max().item(), 1e-30)
    return math.inf if math.isnan(e) else e


def untouched(x, columns):
    return bool(x[:, columns:].isnan().all())


def parts(s, grad):
    return {n: g for n, g in zip(("dq", "dk", "dv"), grad.split([s.heads * s.d, s.kv_heads * s.d, s.kv_heads * s.d], 1))}


def check(kernels, shape, kind, splits=1, passes=("forward", "backward")):
    run = Run(kernels, shape, splits)
    s = shape
    out, lse, grad = reference(run)
    own = torch_own(run) if kernels.device == "cuda" else None
    run.forward(kind)
    got = {"out": error(run.out[:, :s.heads * s.d], out), "lse": error(run.lse, lse)}
    theirs = {"out": error(own[0], out)} if own else {}
    clean = untouched(run.out, s.heads * s.d)
    if "backward" in passes:
        run.backward(kind)
        mine = parts(s, run.dqkv[:, :s.row])
        refs = parts(s, grad)
        got |= {n: error(mine[n], refs[n]) for n in refs}
        if own:
            theirs |= {n: error(g, refs[n]) for n, g in parts(s, own[1]).items()}
        clean &= untouched(run.dqkv, s.row)
    good = clean and all(e < LIMIT for e in got.values())
    numbers = "  ".join(f"{n} {e:.1e}" + (f" [{theirs[n]:.1e}]" if n in theirs else "") for n, e in got.items())
    print(f"{'ok  ' if good else 'FAIL'} {kind or 'plain':6} {shape} splits {splits}: {numbers}"
          + ("" if clean else "  wrote past the row"), flush=True)
    return good
