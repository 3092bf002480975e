"""The CUDA attention kernels against float64 PyTorch, and their speed against PyTorch's own, on a machine with a card.

usage: python tests/reference/attention_cuda.py FOLDER [check] [time]

FOLDER has the fatbins of src/ops/kernels/attention*.cu. Every check draws fresh random inputs, fills what the kernel
is to write with NaN, and prints the largest error over the largest value of the reference, beside it (in brackets)
what PyTorch's own bf16 attention errs by on the same inputs. It fails above 1e-2.
"""
import ctypes
import heapq
import math
import pathlib
import struct
import sys
import time as clock

import torch

LIMIT = 1e-2
# What the Hopper kernels are built with: (warpgroups, keys at a time, stages of these, of queries), the same for dq,
# (warpgroups, queries at a time, stages of these).
HOPPER_FORWARD = {64: (3, 128, 3, 2), 80: (2, 128, 2, 2), 96: (2, 128, 2, 2), 128: (2, 128, 2, 2), 256: (2, 64, 2, 1)}
HOPPER_DQ = {64: (2, 128, 2, 2), 80: (2, 128, 2, 1), 96: (2, 128, 2, 1), 128: (2, 128, 2, 1)}
HOPPER_DKV = {64: (2, 128, 3), 80: (2, 64, 3), 96: (2, 64, 3), 128: (2, 64, 3)}
DECODE_WARPS = {64: 8, 80: 8, 96: 8, 128: 4, 256: 4}
HEAD_SIZES = (64, 80, 96, 128, 256)


def row_bytes(d):
    """Of a row of a tile in the Hopper kernels' shared memory."""
    return -(-d // 64) * 128


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
        """A launch may take as much shared memory as was ever asked for here."""
        f, most = self.functions.get(name, (None, -1))
        if f is None:
            f = ctypes.c_void_p()
            for module in self.modules:
                if self.cuda.cuModuleGetFunction(ctypes.byref(f), module, name.encode()) == 0:
                    break
            else:
                raise RuntimeError(f"no kernel {name}")
        if shared > most:
            self.check(self.cuda.cuFuncSetAttribute(f, 8, shared), f"{name}: {shared} bytes of shared memory")
            self.functions[name] = f, shared
        return f

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
        return (f"D {self.d} H {self.heads}/{self.kv_heads} lengths {n} window {self.window} cap {self.softcap:g} "
                f"pad {self.pad}")

    def tiles(self, size):
        """(start, end, first, 0) for each `size` tokens of each sequence."""
        all, at = [], 0
        for n in self.lengths:
            all += [(at, at + n, at + i, 0) for i in range(0, n, size)]
            at += n
        return all

    def keys_seen(self, tile, size):
        """How many keys a tile of `size` queries goes over."""
        seen = min(tile[2] + size, tile[1]) - tile[0]
        return min(seen, self.window + size) if self.window else seen

    def queries_seeing(self, tile, size):
        seen = tile[1] - tile[2]
        return min(seen, self.window + size) if self.window else seen

    def group_heads(self, column, splits):
        """How many query heads part `column % splits` of a group has."""
        group = self.heads // self.kv_heads
        each = -(-group // splits)
        at = min(column % splits * each, group)
        return min(at + each, group) - at


def schedule(tiles, columns, cost, blocks):
    """Items for the Hopper kernels: a tile and a column each, the heaviest left to the block with the least so far.

    Laid out as block b's items at b, b + blocks, ...; column -1 where a block has no more."""
    items = sorted(((cost(t, c), t[:3] + (c,)) for t in tiles for c in range(columns)), key=lambda x: -x[0])
    blocks = min(blocks, len(items))
    load, lists = [(0, b) for b in range(blocks)], [[] for _ in range(blocks)]
    for work, item in items:
        least, b = load[0]
        heapq.heapreplace(load, (least + work, b))
        lists[b].append(item)
    rounds = max(map(len, lists), default=0)
    return [l[r] if r < len(l) else (0, 0, 0, -1) for r in range(rounds) for l in lists], blocks


def imbalance(shape, splits, blocks, size=128):
    """How much more than the mean the fullest block has to do for dk and dv."""
    items = sorted((shape.queries_seeing(t, size) * shape.group_heads(c, splits) + 256
                    for t in shape.tiles(size) for c in range(shape.kv_heads * splits)), reverse=True)
    load = [0] * blocks
    for work in items:
        heapq.heapreplace(load, load[0] + work)
    return max(load) * blocks / sum(load)


def choose_splits(shape, blocks):
    """The fewest parts of a group that keep all blocks busy to the end, or nearly."""
    group = shape.heads // shape.kv_heads
    return min(range(1, group + 1), key=lambda n: (max(imbalance(shape, n, blocks), 1.1), n))


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

    def first(self, size, work):
        """The plain kernels' tiles, those with most work first."""
        return self.list(sorted(self.s.tiles(size), key=lambda t: -work(t, size)))

    def items(self, size, columns, cost):
        items, blocks = schedule(self.s.tiles(size), columns, cost, self.k.multiprocessors)
        return self.list(items), (blocks, 1, 1)

    def params(self, tiles, hopper):
        s = self.s
        base = struct.pack("8Q4q6i2f", *(t.data_ptr() for t in (
            self.qkv, self.out, self.lse, self.dout, self.delta, self.dqkv, self.partial, tiles)),
            *(t.stride(0) for t in (self.qkv, self.out, self.dout, self.dqkv)),
            s.tokens, s.heads, s.kv_heads, len(tiles), s.window, self.splits, s.scale, s.softcap)
        if not hopper:
            return base
        return self.k.tensor_map(self.qkv, s.row) + self.k.tensor_map(self.dout, s.heads * s.d) + \
            self.k.tensor_map(self.out, s.heads * s.d) + base

    def call(self, key, make):
        """Tile lists and parameters are made once: the timings are the kernels'."""
        if key not in self.calls:
            self.calls[key] = make()
        self.k.launch(*self.calls[key][:-1])

    def forward(self, kind=""):
        d, heads = self.s.d, self.s.heads

        def make():
            groups, keys, stages, more = HOPPER_FORWARD[d] if kind else (0, 0, 0, 0)
            size = 64 * groups or (64 if d == 256 else 128)
            if kind:
                tiles, grid = self.items(size, heads, lambda t, c: self.s.keys_seen(t, size) + 128)
                shared = (more * size + 2 * stages * keys) * row_bytes(d) + 16 * more + 32 * stages
                return f"attention_fwd_{d}_hopper", grid, 128 * (groups + 1), shared, self.params(tiles, True), tiles
            tiles = self.first(size, self.s.keys_seen)
            shared = (size + 128) * (d + 8) * 2
            return f"attention_fwd_{d}", (heads, len(tiles), 1), 128, shared, self.params(tiles, False), tiles
        self.call(("forward", kind), make)

    def backward(self, kind="", only=("dq", "dkv")):
        s, d = self.s, self.s.d
        kind = kind if d in HOPPER_DQ else ""
        columns = s.kv_heads * self.splits

        def make_dq():
            if kind:
                groups, keys, stages, more = HOPPER_DQ[d]
                size = 64 * groups
                tiles, grid = self.items(size, s.heads, lambda t, c: s.keys_seen(t, size) + 128)
                shared = (3 * size * more + 2 * keys * stages) * row_bytes(d) + 16 * more + 32 * stages
                return f"attention_dq_{d}_hopper", grid, 128 * (groups + 1), shared, self.params(tiles, True), tiles
            tiles = self.first(64, s.keys_seen)
            shared = (128 + 2 * (32 if d == 256 else 64)) * (d + 8) * 2
            return f"attention_dq_{d}", (s.heads, len(tiles), 1), 128, shared, self.params(tiles, False), tiles

        def make_dkv():
            if kind:
                groups, queries, stages = HOPPER_DKV[d]
                size = 64 * groups
                tiles, grid = self.items(
                    size, columns, lambda t, c: s.queries_seeing(t, size) * s.group_heads(c, self.splits) + 256)
                shared = 2 * (size + stages * queries) * row_bytes(d) + stages * queries * 8 + 16 + 16 * stages
                return f"attention_dkv_{d}_hopper", grid, 128 * (groups + 1), shared, self.params(tiles, True), tiles
            tiles = self.first(64, s.queries_seeing)
            queries = {64: 64, 256: 16}.get(d, 32)
            return (f"attention_dkv_{d}", (columns, len(tiles), 2 if d == 256 else 1), 128,
                    (128 + 4 * queries) * (d + 8) * 2, self.params(tiles, False), tiles)

        def make_sum():
            none = self.list([(0, 0, 0, 0)])
            return f"attention_dkv_sum_{d}", (s.tokens, 1, 1), 128, 0, self.params(none, False), none
        if "dq" in only:
            self.call(("dq", kind), make_dq)
        if "dkv" in only:
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
    return dict(zip(("dq", "dk", "dv"), grad.split([s.heads * s.d, s.kv_heads * s.d, s.kv_heads * s.d], 1)))


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


class Decode:
    """Caches of random contents, one new token for each sequence, and the kernels over them."""

    def __init__(self, kernels, lengths, heads, kv_heads, d, capacity, window=0, softcap=0.0, pad=0, splits=1,
                 append=1):
        dev, batch = kernels.device, len(lengths)
        self.k, self.lens, self.heads, self.kv_heads, self.d, self.append = kernels, lengths, heads, kv_heads, d, append
        self.window, self.softcap, self.splits, self.pad = window, softcap, splits, pad
        self.qkv = torch.full((batch, (heads + 2 * kv_heads) * d + pad), math.nan, dtype=torch.bfloat16, device=dev)
        self.qkv[:, :(heads + 2 * kv_heads) * d] = torch.randn(batch, (heads + 2 * kv_heads) * d, device=dev).bfloat16()
        self.out = torch.full((batch, heads * d + pad), math.nan, dtype=torch.bfloat16, device=dev)
        self.keys, self.values = (
            torch.full((batch, capacity, kv_heads * d), math.nan, dtype=torch.bfloat16, device=dev) for _ in range(2))
        for b, n in enumerate(lengths):
            self.keys[b, :n] = torch.randn(n, kv_heads * d, device=dev).bfloat16()
            self.values[b, :n] = torch.randn(n, kv_heads * d, device=dev).bfloat16()
        self.lengths = torch.tensor(lengths, dtype=torch.int32, device=dev)
        self.pieces = kv_heads * ((heads // kv_heads + 15) // 16)
        self.partial = torch.full((batch, heads, splits, d + 2), math.nan, device=dev)
        self.counters = torch.zeros(batch * self.pieces, dtype=torch.int32, device=dev)

    def params(self, slots=0):
        return struct.pack("8Q4q6i2f", *(t.data_ptr() for t in (
            self.qkv, self.out, self.keys, self.values, self.lengths, self.partial, self.counters)), slots,
            self.qkv.stride(0), self.out.stride(0), self.keys.stride(0), self.keys.stride(1),
            len(self.lens), self.heads, self.kv_heads, self.window, self.splits, self.append, self.d ** -0.5,
            self.softcap)

    def run(self):
        warps = DECODE_WARPS[self.d]
        self.k.launch(f"attention_decode_{self.d}", (self.splits, self.pieces, len(self.lens)), 32 * warps,
                      64 * (warps * (self.d + 3) + self.splits), self.params())

    def reference(self):
        d, h, kv = self.d, self.heads, self.kv_heads
        rows = []
        for b, n in enumerate(self.lens):
            q, k1, v1 = self.qkv[b, :(h + 2 * kv) * d].double().view(-1, d).split([h, kv, kv])
            k, v = (c[b, :n].double().view(n, kv, d).transpose(0, 1) for c in (self.keys, self.values))
            if self.append:
                k, v = torch.cat([k, k1[:, None]], 1), torch.cat([v, v1[:, None]], 1)
            if self.window:
                k, v = k[:, -self.window:], v[:, -self.window:]
            k, v = (x.repeat_interleave(h // kv, 0) for x in (k, v))
            s = (k @ q[:, :, None])[..., 0] * d ** -0.5
            if self.softcap:
                s = self.softcap * torch.tanh(s / self.softcap)
            rows.append((torch.softmax(s, -1)[:, None] @ v).reshape(-1))
        return torch.stack(rows)


def check_decode(kernels, lengths, heads, kv_heads, d, capacity, **options):
    x = Decode(kernels, lengths, heads, kv_heads, d, capacity, **options)
    ref, rows = x.reference(), [x.keys.clone(), x.values.clone()]
    good, errors = True, []
    for _ in range(2):  # twice: the counters must be zero again, and appending the same again changes nothing
        x.out.fill_(math.nan)
        x.run()
        errors.append(error(x.out[:, :heads * d], ref))
    for b, n in enumerate(lengths if x.append else []):
        rows[0][b, n], rows[1][b, n] = x.qkv[b, heads * d:(heads + 2 * kv_heads) * d].split(kv_heads * d)
    good = max(errors) < LIMIT and untouched(x.out, heads * d) and bool((x.counters == 0).all())
    good &= all(torch.equal(a.view(torch.int16), b.view(torch.int16)) for a, b in zip(rows, (x.keys, x.values)))
    print(f"{'ok  ' if good else 'FAIL'} decode D {d} H {heads}/{kv_heads} lengths {lengths[:5]} {options}: "
          f"out {max(errors):.1e}", flush=True)
    return good


def check_append(kernels, d):
    """Rows of a prompt to given places; every other place keeps what it has."""
    x = Decode(kernels, [5, 9], 4, 2, d, 16, pad=8)
    slots = torch.tensor([(1, 9), (0, 15)], dtype=torch.int32, device=kernels.device)
    expected = [x.keys.clone(), x.values.clone()]
    for t, (b, at) in enumerate(slots.tolist()):
        expected[0][b, at], expected[1][b, at] = x.qkv[t, 4 * d:8 * d].split(2 * d)
    kernels.launch(f"attention_append_{d}", (2, 1, 1), 128, 0, x.params(slots.data_ptr()))
    good = all(torch.equal(a.view(torch.int16), b.view(torch.int16)) for a, b in zip(expected, (x.keys, x.values)))
    print(f"{'ok  ' if good else 'FAIL'} append D {d}", flush=True)
    return good


def check_decode_all(kernels):
    good = True
    for d in HEAD_SIZES:
        good &= check_append(kernels, d)
        for heads, kv in ((14, 2), (28, 4), (40, 2), (3, 3)):
            good &= check_decode(kernels, [0, 1, 63, 130, 1023], heads, kv, d, 1024, splits=1, pad=8)
            good &= check_decode(kernels, [300, 1, 1023, 512], heads, kv, d, 1024, splits=4)
            good &= check_decode(kernels, [300, 7, 1000], heads, kv, d, 1024, splits=3, window=129, softcap=4.0,
                                 append=0)
    return good


def time_decode(kernels, batch, heads, kv_heads, d, low, high, splits):
    """Bytes counted: keys and values once."""
    lengths = torch.linspace(low, high - 1, batch).int().tolist()
    sets = [Decode(kernels, lengths, heads, kv_heads, d, high, splits=splits) for _ in range(4)]
    ms = median_ms(lambda x: x.run(), sets)
    total = sum(n + 1 for n in lengths) * 4 * kv_heads * d
    print(f"decode batch {batch} D {d} H {heads}/{kv_heads} lengths {low}-{high} splits {splits}: {ms * 1e3:6.1f} us "
          f"{total / ms / 1e9:5.2f} TB/s", flush=True)


def check_all(kernels):
    good = True
    for d in HEAD_SIZES:
        for kind in ("", "hopper") if kernels.hopper else ("",):
            for shape, splits in (
                (Shape([1, 7, 129, 2048], 7, 1, d, pad=8), 1),
                (Shape([300, 64, 65], 6, 2, d), 2),
                (Shape([2048, 2048], 14, 2, d), 4),
                (Shape([700, 130, 1], 4, 4, d, window=100, pad=64), 1),
                (Shape([513, 2], 3, 1, d, softcap=5.0), 3),
                (Shape([1000], 6, 2, d, window=333, softcap=20.0, pad=8), 1),
            ):
                good &= check(kernels, shape, kind, splits)
    return good


def median_ms(call, sets, repeat=15, graph=True):
    """Of one call; a graph of one call for each input set, so that launching does not count. The clocks need a while
    of work to come up: nothing counts of the first 50 ms."""
    def all():
        for x in sets:
            call(x)
    all()
    torch.cuda.synchronize()
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            all()
        all = captured.replay
    start = clock.perf_counter()
    while clock.perf_counter() < start + 0.05:
        all()
        torch.cuda.synchronize()
    times = []
    for _ in range(repeat):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        all()
        b.record()
        times.append((a, b))
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in times)[repeat // 2] / len(sets)


def time(kernels, shape, splits=1, kinds=("", "hopper"), own=True, label=""):
    """Operations counted: 4 D for each visible pair forward, 2.5 times that backward."""
    s = shape
    operations = 4 * s.d * s.heads * sum(n * n / 2 for n in s.lengths)
    runs = [Run(kernels, s, splits) for _ in range(3)]

    def show(name, ms, share):
        print(f"{label} {s} splits {splits}  {name:16} {ms:8.3f} ms {share * operations / ms / 1e9:7.0f} TFLOP/s",
              flush=True)
    for kind in kinds:
        name = kind or "plain"
        show(f"{name} forward", median_ms(lambda r: r.forward(kind), runs), 1)
        show(f"{name} backward", median_ms(lambda r: r.backward(kind), runs), 2.5)
        for part, share in (("dq", 1.5), ("dkv", 2)):
            show(f"{name} {part}", median_ms(lambda r: r.backward(kind, (part,)), runs), share)
    if own:
        n = s.lengths[0]

        def heads(t, h):
            return t.view(len(s.lengths), n, h, s.d).transpose(1, 2)
        sets = []
        for r in runs:
            q, k, v = r.qkv[:, :s.row].split([s.heads * s.d, s.kv_heads * s.d, s.kv_heads * s.d], 1)
            dout = heads(r.dout[:, :s.heads * s.d].contiguous(), s.heads)
            sets.append((*(heads(t.contiguous(), h).detach().requires_grad_()
                           for t, h in ((q, s.heads), (k, s.kv_heads), (v, s.kv_heads))), dout))

        def sdpa(x):
            return torch.nn.functional.scaled_dot_product_attention(*x[:3], is_causal=True, enable_gqa=True)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            with torch.no_grad():
                show("torch forward", median_ms(sdpa, sets), 1)
            graphs = [(sdpa(x), x) for x in sets]
            show("torch backward", median_ms(
                lambda g: torch.autograd.grad(g[0], g[1][:3], g[1][3], retain_graph=True), graphs, graph=False), 2.5)


def main():
    folder, what = sys.argv[1], sys.argv[2:] or ["check", "time"]
    kernels = Kernels(folder)
    torch.manual_seed(torch.seed() % 2**31)
    if "check" in what and not (check_all(kernels) & check_decode_all(kernels)):
        sys.exit("wrong")
    if "time" in what:
        kinds = ("", "hopper") if kernels.hopper else ("",)
        for lengths in ([2048] * 4, [2048] * 16, [32768]):
            for shape in (Shape(lengths, 28, 4, 128), Shape(lengths, 14, 2, 64)):
                time(kernels, shape, choose_splits(shape, kernels.multiprocessors), kinds)
        for splits in (1, 2, 4):
            time_decode(kernels, 64, 14, 2, 64, 512, 1024, splits)
            time_decode(kernels, 64, 28, 4, 128, 512, 1024, splits)


if __name__ == "__main__":
    main()
