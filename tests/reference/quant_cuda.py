"""Checks src/ops/kernels/{nf4,gguf,adamw}.cu against bitsandbytes, gguf-py and torch.

On a machine with a card, the fatbins beside each other in a folder (built as the kernels' launch notes say):

    python tests/reference/quant_cuda.py --fatbins DIR

Without a card: the same kernels, compiled by g++ and run on the CPU (small sizes, no timings):

    python tests/reference/quant_cuda.py --host

Needs torch, numpy, gguf and bitsandbytes 0.50. Prints a line a check and ends with status 1 if one failed.
"""

import argparse
import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = HERE.parent.parent / "src" / "ops" / "kernels"
u32, u64, f32 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_float
failures = []


def report(name, ok, detail=""):
    print(f"{'ok  ' if ok else 'FAIL'} {name}{': ' if detail else ''}{detail}", flush=True)
    if not ok:
        failures.append(name)


def same(name, got, want):
    """Equal to the bit, NaN included."""
    got, want = got.detach().cpu().contiguous(), want.detach().cpu().contiguous()
    if got.shape != want.shape or got.dtype != want.dtype:
        return report(name, False, f"{got.dtype}{tuple(got.shape)} against {want.dtype}{tuple(want.shape)}")
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[got.element_size()]
    differ = got.view(kind) != want.view(kind)
    if got.is_floating_point():
        differ &= ~((got == 0) & (want == 0))
    count = int(differ.sum())
    detail = f"{got.numel()} numbers"
    if count:
        at = int(differ.reshape(-1).nonzero()[0])
        detail = f"{count} of {got.numel()} differ, first at {at}: {got.reshape(-1)[at]} not {want.reshape(-1)[at]}"
    report(name, count == 0, detail)


def near(name, got, want, bound):
    """max|a-b| <= bound * max|b|."""
    got, want = got.double().cpu(), want.double().cpu()
    error = float((got - want).abs().max() / want.abs().max())
    report(name, error <= bound, f"{error:.2e} (at most {bound:.0e})")


class Host:
    """The kernels on the CPU."""

    device = "cpu"

    def __init__(self):
        self.dir = tempfile.TemporaryDirectory()
        self.libs = {}

    def library(self, file):
        if file not in self.libs:
            text = (KERNELS / file).read_text()
            names = re.findall(r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(', text)
            names = [n for n in names if not n.startswith(("__", "gguf_"))]
            names += ["gguf_dequantize_" + n for n in re.findall(r"^KERNEL\((\w+)", text, re.M)]
            source = pathlib.Path(self.dir.name) / (file + ".cpp")
            source.write_text(f'#include "cuda_on_host.h"\n#include "{KERNELS / file}"\n'
                              + "".join(f"HOST_KERNEL({n})\n" for n in names))
            out = source.with_suffix(".so")
            subprocess.run(["g++", "-O2", "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", "-w",
                            "-I", HERE / "cuda_on_host", source, "-o", out], check=True)
            self.libs[file] = ctypes.CDLL(str(out))
        return self.libs[file]

    def launch(self, file, name, grid, block, *args):
        grid = grid if isinstance(grid, tuple) else (grid, 1)
        getattr(self.library(file), f"run_{name}")(*grid, block, pointers(args))

    def rate(self, *_):
        pass


class Card:
    """The kernels on the card, launched through the driver."""

    device = "cuda"

    def __init__(self, fatbins):
        torch.cuda.init()
        torch.zeros(1, device="cuda")
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.fatbins, self.functions, self.modules = pathlib.Path(fatbins), {}, {}
        print(torch.cuda.get_device_name(), torch.__version__)

    def check(self, code):
        if code:
            raise RuntimeError(f"CUDA driver error {code}")

    def function(self, file, name):
        if name not in self.functions:
            if file not in self.modules:
                module = ctypes.c_void_p()
                data = (self.fatbins / file.replace(".cu", ".fatbin")).read_bytes()
                self.check(self.cuda.cuModuleLoadData(ctypes.byref(module), data))
                self.modules[file] = module
            function = ctypes.c_void_p()
            self.check(self.cuda.cuModuleGetFunction(ctypes.byref(function), self.modules[file], name.encode()))
            self.functions[name] = function
        return self.functions[name]

    def enqueue(self, file, name, grid, block, *args):
        grid = grid if isinstance(grid, tuple) else (grid, 1)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.check(self.cuda.cuLaunchKernel(self.function(file, name), *grid, 1, block, 1, 1, 0, stream,
                                            pointers(args), None))

    def launch(self, *args):
        self.enqueue(*args)
        torch.cuda.synchronize()

    def rate(self, name, moved, launches):
        """Median time of a launch in a replayed graph of 64; `launches` rotate, so that no cache holds what is read."""
        for one in launches:
            self.enqueue(*one)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for k in range(64):
                self.enqueue(*launches[k % len(launches)])
        times = []
        for _ in range(12):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 64)
        ms = sorted(times)[len(times) // 2]
        print(f"     {name}: {ms * 1e3:.1f} us, {moved / ms / 1e6:.0f} GB/s")


def peer_rate(name, moved, call):
    """Median time of a call of a peer's, 16 in a row."""
    times = []
    for _ in range(8):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for k in range(16):
            call(k)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 16)
    ms = sorted(times)[len(times) // 2]
    print(f"     {name}: {ms * 1e3:.1f} us, {moved / ms / 1e6:.0f} GB/s")


def pointers(args):
    """args as cuLaunchKernel takes them: a tensor is its address, the rest ctypes values."""
    held = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_void_p(0) if a is None else a
            for a in args]
    array = (ctypes.c_void_p * len(held))(*[ctypes.cast(ctypes.byref(h), ctypes.c_void_p) for h in held])
    array.held = held
    return array


def ceil(a, b):
    return -(-a // b)


def poison(shape, dtype, device):
    size = int(np.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
    return torch.full((size,), 0xA5, dtype=torch.uint8, device=device).view(dtype).reshape(shape)


# NF4 ------------------------------------------------------------------------------------------------------------

def nf4(run):
    from bitsandbytes import functional as F

    file, code = "nf4.cu", F.create_dynamic_map(signed=True)
    mids = (code[:-1] + code[1:]) / 2
    levels = F.get_4bit_type("nf4", device="cpu")
    on = code.to(run.device)
    generator = torch.Generator().manual_seed(11)
    for rows, cols in [(1, 64), (3, 64), (130, 192), (256, 1024), (96, 4864)]:
        for dtype, kernel in [(torch.bfloat16, "nf4_quantize_bf16"), (torch.float32, "nf4_quantize_f32")]:
            w = torch.randn(rows, cols, generator=generator) * 0.02
            w[rows // 2, :64] *= 1e-30
            w[-1, :64] = 0.0
            w[0, 0] = 3.0
            w = w.to(dtype)
            n, blocks = w.numel(), w.numel() // 64
            name = f"{rows}x{cols} {str(dtype)[6:]}"
            want, state = F.quantize_4bit(w, blocksize=64, quant_type="nf4")

            packed, top = poison([n // 2], torch.uint8, run.device), poison([blocks], torch.float32, run.device)
            run.launch(file, kernel, ceil(n, 2048), 256, w.to(run.device), u64(n), packed, top)
            same(f"nf4 codes {name}", packed, want.reshape(-1))
            same(f"nf4 absmax {name}", top, state.absmax)

            offset = poison([1], torch.float32, run.device)
            run.launch(file, "nf4_mean", 1, 1024, top, u64(blocks), offset)
            near(f"nf4 offset {name}", offset, state.absmax.double().mean().reshape(1), 6e-8)

            # Double quantization, as bitsandbytes' GPU path does it: times the reciprocal, the nearest code.
            q, nested = poison([blocks], torch.uint8, run.device), poison([ceil(blocks, 256)], torch.float32, run.device)
            run.launch(file, "nf4_quantize_absmax", ceil(blocks, 256), 256, top, u64(blocks), offset, on, q, nested)
            x = torch.nn.functional.pad(state.absmax - offset.cpu(), (0, -blocks % 256)).view(-1, 256)
            most = x.abs().amax(1)
            same(f"nf4 nested {name}", nested, most)
            scaled = (x * (1 / most.clamp(min=1e-38))[:, None]).reshape(-1)[:blocks]
            want_q = torch.bucketize(scaled, mids, out_int32=True).to(torch.uint8)
            same(f"nf4 absmax codes {name}", q, want_q)

            # bitsandbytes' own dequantization of this state.
            state2 = F.QuantState(absmax=most, code=code, blocksize=256, dtype=torch.float32)
            s = F.QuantState(absmax=want_q, shape=w.shape, dtype=torch.bfloat16, blocksize=64, code=levels,
                             quant_type="nf4", offset=offset.cpu()[0], state2=state2)
            for ld in (cols, cols + 72):
                out = poison([rows, ld], torch.bfloat16, run.device)
                untouched = out[:, cols:].clone()
                grid = ceil(n, 8192) if ld > cols else ceil(n, 20000)
                run.launch(file, "nf4_dequantize_bf16", grid, 256, packed, q, nested, offset, on, out,
                           u32(rows), u32(cols), u64(ld))
                same(f"nf4 dequantized {name} ld {ld}", out[:, :cols], F.dequantize_4bit(want, s))
                same(f"nf4 between rows {name} ld {ld}", out[:, cols:], untouched)
            out = poison([rows, cols], torch.bfloat16, run.device)
            run.launch(file, "nf4_dequantize_bf16", ceil(n, 8192), 256, packed, top, None, None, None, out,
                       u32(rows), u32(cols), u64(cols))
            state.dtype = torch.bfloat16
            same(f"nf4 dequantized {name} single", out, F.dequantize_4bit(want, state))

    if run.device == "cuda":
        w = (torch.randn(4096, 4096, device="cuda") * 0.02).bfloat16()
        want, state = F.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
        n, blocks = w.numel(), w.numel() // 64
        packed, top = torch.empty(n // 2, dtype=torch.uint8, device="cuda"), torch.empty(blocks, device="cuda")
        q, nested = torch.empty(blocks, dtype=torch.uint8, device="cuda"), torch.empty(ceil(blocks, 256), device="cuda")
        offset = torch.empty(1, device="cuda")
        run.launch(file, "nf4_quantize_bf16", ceil(n, 2048), 256, w, u64(n), packed, top)
        run.launch(file, "nf4_mean", 1, 1024, top, u64(blocks), offset)
        run.launch(file, "nf4_quantize_absmax", ceil(blocks, 256), 256, top, u64(blocks), offset, on, q, nested)
        print(f"     against bitsandbytes on the card, 4096x4096: {int((packed != want.view(-1)).sum())} of {n // 2} "
              f"bytes, {int((q != state.absmax).sum())} of {blocks} absmax codes differ, offset "
              f"{float(offset):.9g} and {float(state.offset):.9g}")
        out = torch.empty_like(w)
        run.launch(file, "nf4_dequantize_bf16", ceil(n, 8192), 256, want, state.absmax, state.state2.absmax,
                   state.offset.reshape(1), state.state2.code, out, u32(4096), u32(4096), u64(4096))
        same("nf4 dequantized as bitsandbytes on the card", out, F.dequantize_4bit(want, state))
        for rows, cols in [(18944, 3584), (3584, 3584), (896, 4864), (896, 896)]:
            n, sets = rows * cols, max(1, min(64, (256 << 20) // (rows * cols * 2)))
            launches, quantize = [], []
            for _ in range(sets):
                packed = torch.randint(0, 256, (n // 2,), dtype=torch.uint8, device="cuda")
                q = torch.randint(0, 256, (n // 64,), dtype=torch.uint8, device="cuda")
                nested = torch.rand(ceil(n // 64, 256), device="cuda")
                out = torch.empty(rows, cols, dtype=torch.bfloat16, device="cuda")
                launches.append((file, "nf4_dequantize_bf16", ceil(n, 8192), 256, packed, q, nested, offset, on, out,
                                 u32(rows), u32(cols), u64(cols)))
                quantize.append((file, "nf4_quantize_bf16", ceil(n, 2048), 256, torch.randn_like(out), u64(n), packed,
                                 torch.empty(n // 64, device="cuda")))
            run.rate(f"nf4_dequantize_bf16 {rows}x{cols}", n * (2 + 0.5 + 1 / 64 + 4 / 16384), launches)
            if rows > 9000:
                _, state = F.quantize_4bit(launches[0][9], quant_type="nf4", blocksize=64, compress_statistics=True)
                peer_rate(f"bitsandbytes dequantize_4bit {rows}x{cols}", n * (2 + 0.5 + 1 / 64),
                          lambda k: F.dequantize_4bit(launches[k % sets][4], state))
            if rows > 3000:
                run.rate(f"nf4_mean {rows}x{cols}", n / 16, [(file, "nf4_mean", 1, 1024, quantize[0][7], u64(n // 64),
                                                              torch.empty(1, device="cuda"))])
                run.rate(f"nf4_quantize_bf16 {rows}x{cols}", n * (2 + 0.5 + 4 / 64), quantize)
        big = [torch.randn(1 << 28, device="cuda") for _ in range(2)]
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        big[1].copy_(big[0])
        start.record()
        for _ in range(10):
            big[1].copy_(big[0])
        end.record()
        torch.cuda.synchronize()
        print(f"     device copy: {10 * 2 * 4 * (1 << 28) / start.elapsed_time(end) / 1e6:.0f} GB/s")


# GGUF -----------------------------------------------------------------------------------------------------------

def stored(kind, n, generator):
    """n weights in a GGUF format: random bits in every field, scales a model could have."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = torch.randint(0, 256, (n // block, size), dtype=torch.uint8, generator=generator).numpy()
    scales = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
              "Q6_K": [208], "F16": [0], "BF16": [0]}[kind.name]
    for at in scales:
        x = (torch.randn(n // block, generator=generator) * 0.02).to(torch.bfloat16 if kind.name == "BF16" else torch.float16)
        raw[:, at:at + 2] = x.view(torch.uint8).reshape(-1, 2).numpy()
    return raw.reshape(-1)


def gguf_kernels(run):
    import gguf

    kinds = [gguf.GGMLQuantizationType[k] for k in
             ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16")]
    generator = torch.Generator().manual_seed(3)
    for kind in kinds:
        name = f"gguf_dequantize_{kind.name.lower()}"
        for rows, cols, heads in [(1, 256, 0), (48, 768, 3), (130, 1024, 0), (7, 4864, 0)]:
            n = rows * cols
            raw = stored(kind, n, generator)
            want = torch.from_numpy(gguf.quants.dequantize(raw, kind).astype(np.float32).copy()).reshape(rows, cols)
            if heads:  # what llama.cpp stores is the permuted matrix; undo it as transformers' GGUF loader does
                want = want.reshape(heads, rows // heads // 2, 2, cols).transpose(1, 2).reshape(rows, cols)
            on = torch.from_numpy(raw.copy()).to(run.device)
            for ld in (cols, cols + 40):
                out = poison([rows, ld], torch.bfloat16, run.device)
                untouched = out[:, cols:].clone()
                run.launch("gguf.cu", name, ceil(n, 8192), 256, on, out, u32(rows), u32(cols), u64(ld), u32(heads))
                same(f"{name} {rows}x{cols} heads {heads} ld {ld}", out[:, :cols], want.bfloat16())
                same(f"{name} {rows}x{cols} between rows, ld {ld}", out[:, cols:], untouched)
    if run.device == "cuda":
        rows, cols = 18944, 3584
        n = rows * cols
        for kind in kinds:
            block, size = gguf.GGML_QUANT_SIZES[kind]
            launches = [("gguf.cu", f"gguf_dequantize_{kind.name.lower()}", ceil(n, 8192), 256,
                         torch.randint(0, 128, (n // block * size,), dtype=torch.uint8, device="cuda"),
                         torch.empty(n, dtype=torch.bfloat16, device="cuda"), u32(rows), u32(cols), u64(cols), u32(0))
                        for _ in range(2)]
            run.rate(f"gguf_dequantize_{kind.name.lower()} {rows}x{cols}", n * (2 + size / block), launches)


# AdamW ----------------------------------------------------------------------------------------------------------

class Step(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in ("values", "grads", "m", "v")] + [("n", u64)] + \
        [(n, ctypes.c_void_p) for n in ("decay", "norm_sq", "loss")] + [("max_norm", ctypes.c_double)] + \
        [(n, f32) for n in ("keep", "new1", "beta2", "new2", "rate", "root", "eps")] + \
        [(n, u32) for n in ("ranges", "flags", "reserved")]


class Step8(ctypes.Structure):
    _fields_ = [("step", Step)] + [(n, ctypes.c_void_p) for n in ("code_m", "code_v", "absmax_m", "absmax_v")]


ZERO_GRADS, LOSS_F64 = 1, 2
BETA1, BETA2, EPS, DECAY, LR = 0.9, 0.999, 1e-8, 0.1, 1e-3


def step_args(w, g, m, v, t, decay, norm_sq, loss, max_norm, flags):
    def at(x):
        return None if x is None else x.data_ptr()

    s = Step(at(w), at(g), at(m), at(v), w.numel(), at(decay), at(norm_sq), at(loss), max_norm, 1 - LR * DECAY,
             1 - BETA1, BETA2, 1 - BETA2, LR / (1 - BETA1 ** t), (1 - BETA2 ** t) ** 0.5, EPS,
             0 if decay is None else decay.numel() // 2, flags, 0)
    s.held = (w, g, m, v, decay, norm_sq, loss)
    return s


def by_hand(w, g, m, v, t, inside):
    """The update in f32, operation by operation."""
    one = np.float32
    m = m + one(1 - BETA1) * (g - m)
    v = one(BETA2) * v + one(1 - BETA2) * g * g
    keep = np.where(inside, one(1 - LR * DECAY), one(1))
    return w * keep - one(LR / (1 - BETA1 ** t)) * m / (np.sqrt(v) / one((1 - BETA2 ** t) ** 0.5) + one(EPS)), m, v


def l2(run, g, grid=64):
    partials, out = poison([grid], torch.float64, run.device), poison([1], torch.float64, run.device)
    run.launch("adamw.cu", "l2_partials", grid, 256, g, u64(g.numel()), partials)
    run.launch("adamw.cu", "l2_finish", 1, 256, partials, u32(grid), out)
    return out


def adamw(run):
    generator = torch.Generator().manual_seed(5)
    for n in (1, 5, 1027, 300_001):
        g = torch.randn(n, generator=generator).to(run.device)
        want = g.double().square().sum().reshape(1)
        first = l2(run, g)
        near(f"l2 of {n}", first, want, 1e-14)
        same(f"l2 of {n} again", l2(run, g), first)
    for bad in (float("nan"), float("inf")):
        g = torch.ones(1000, device=run.device)
        g[999] = bad
        report(f"l2 shows {bad}", not torch.isfinite(l2(run, g)).item())

    n = 5003
    inside = np.zeros(n, bool)
    ranges = [(0, 1), (3, 10), (10, 11), (1021, 1027), (2000, 4999), (5002, 5003)]
    for a, b in ranges:
        inside[a:b] = True
    decay = torch.tensor(ranges, dtype=torch.int64, device=run.device).reshape(-1)
    start = torch.randn(n, generator=generator)
    w, m, v = start.clone().to(run.device), torch.zeros(n, device=run.device), torch.zeros(n, device=run.device)
    hand = [start.numpy().copy(), np.zeros(n, np.float32), np.zeros(n, np.float32)]
    peers = []
    for dtype in (torch.float32, torch.float64):
        both = [torch.nn.Parameter(start[torch.tensor(k)].to(dtype)) for k in (inside, ~inside)]
        peers.append((both, torch.optim.AdamW([{"params": [both[0]], "weight_decay": DECAY},
                                               {"params": [both[1]], "weight_decay": 0.0}],
                                              lr=LR, betas=(BETA1, BETA2), eps=EPS)))
    loss = torch.tensor([1.5], dtype=torch.float64, device=run.device)
    for t in range(1, 13):
        g = torch.randn(n, generator=generator) * (0.001 if t % 3 == 0 else 1.0)
        on = g.clone().to(run.device)
        norm_sq = l2(run, on)
        run.launch("adamw.cu", "adamw", 3, 256,
                   step_args(w, on, m, v, t, decay, norm_sq, loss, 1.0, ZERO_GRADS | LOSS_F64))
        report(f"adamw zeroes gradients, step {t}", not on.any().item())
        factor = np.float32(min(1.0, 1.0 / (np.sqrt(norm_sq.item()) + 1e-6)))
        hand = by_hand(hand[0], g.numpy() * factor, hand[1], hand[2], t, inside)
        for both, optimizer in peers:
            for p, k in zip(both, (inside, ~inside)):
                p.grad = g[torch.tensor(k)].to(p.dtype)
            torch.nn.utils.clip_grad_norm_(both, 1.0)
            optimizer.step()
    same("adamw values, 12 steps by hand", w, torch.tensor(hand[0]))
    same("adamw m", m, torch.tensor(hand[1]))
    same("adamw v", v, torch.tensor(hand[2]))
    for both, _ in peers:
        for p, k in zip(both, (inside, ~inside)):
            near(f"adamw against torch {str(p.dtype)[6:]}", w.cpu()[torch.tensor(k)], p.detach(), 1e-6)

    for name, norm, bad, flags, finite in [
            ("norm nan", float("nan"), 1.0, LOSS_F64, False), ("norm inf", float("inf"), 1.0, 0, False),
            ("loss nan, f64", 4.0, float("nan"), LOSS_F64 | ZERO_GRADS, False), ("loss inf, f32", 4.0, float("inf"), 0, False),
            ("no loss", 4.0, None, 0, True), ("no norm", None, 1.0, LOSS_F64, True), ("no limit", 1e12, 1.0, 0, True)]:
        g = torch.randn(n, generator=generator)
        w2, m2, v2, g2 = w.clone(), m.clone(), v.clone(), g.clone().to(run.device)
        kind = torch.float64 if flags & LOSS_F64 else torch.float32
        l = None if bad is None else torch.tensor([bad], dtype=kind, device=run.device)
        q = None if norm is None else torch.tensor([norm], dtype=torch.float64, device=run.device)
        limit = 0.0 if name == "no limit" else 1.0
        run.launch("adamw.cu", "adamw", 100, 256, step_args(w2, g2, m2, v2, 13, None, q, l, limit, flags))
        if finite:
            factor = np.float32(min(1.0, 1.0 / (norm ** 0.5 + 1e-6))) if norm and limit else np.float32(1)
            want = by_hand(w.cpu().numpy(), g.numpy() * factor, m.cpu().numpy(), v.cpu().numpy(), 13, False)
            same(f"adamw, {name}", w2, torch.tensor(want[0]))
        else:
            same(f"adamw left out, {name}", torch.stack([w2, m2, v2]), torch.stack([w, m, v]))
        same(f"adamw gradients, {name}", g2.cpu(), torch.zeros(n) if flags & ZERO_GRADS else g)

    adamw8(run)
    if run.device == "cuda":
        sms = torch.cuda.get_device_properties(0).multi_processor_count
        n = 40_370_176  # LoRA r=16 on all linear layers of Qwen2.5-7B
        sets = [[torch.randn(n, device="cuda") for _ in range(3)] + [torch.rand(n, device="cuda")] for _ in range(2)]
        norm_sq = torch.tensor([4.0], dtype=torch.float64, device="cuda")
        decay = torch.tensor([0, n], dtype=torch.int64, device="cuda")
        partials = torch.empty(sms * 8, dtype=torch.float64, device="cuda")
        for grid in (sms * 4, sms * 8, ceil(n, 1024)):
            run.rate(f"adamw {n}, {grid} CTAs", n * 28,
                     [("adamw.cu", "adamw", grid, 256,
                       step_args(w, g, m, v, 3, decay, norm_sq, None, 1.0, 0)) for w, g, m, v in sets])
        run.rate(f"l2_partials {n}", n * 4,
                 [("adamw.cu", "l2_partials", sms * 8, 256, s[0], u64(n), partials) for s in sets])
        out = torch.empty(1, dtype=torch.float64, device="cuda")
        run.rate("l2_finish", sms * 64, [("adamw.cu", "l2_finish", 1, 256, partials, u32(sms * 8), out)])
        maps = dynamic_maps(run.device)
        peers = [torch.nn.Parameter(s[0]) for s in sets]
        for p, s in zip(peers, sets):
            p.grad = s[1]
        optimizer = torch.optim.AdamW(peers, lr=LR, weight_decay=DECAY, fused=True)
        peer_rate(f"torch's fused AdamW, 2 x {n}", n * 28 * 2, lambda _: optimizer.step())
        q8 = [torch.zeros(n, dtype=torch.uint8, device="cuda") for _ in range(2)]
        a8 = [torch.rand(ceil(n, 256), device="cuda") for _ in range(2)]
        peer_rate(f"bitsandbytes' 8-bit AdamW, {n}", n * 16,
                  lambda k: torch.ops.bitsandbytes.optimizer_update_8bit_blockwise(
                      "adam", sets[k % 2][1], sets[k % 2][0], *q8, BETA1, BETA2, 0.0, 0.0, EPS, 3, LR, *maps, *a8,
                      DECAY, 1.0, False))
        for grid in (sms * 4, ceil(n, 2048)):
            run.rate(f"adamw_8bit {n}, {grid} CTAs", n * (16 + 16 / 256),
                     [("adamw.cu", "adamw_8bit", grid, 256,
                       step8(w, g, torch.zeros(n, dtype=torch.uint8, device="cuda"),
                             torch.zeros(n, dtype=torch.uint8, device="cuda"), torch.rand(ceil(n, 256), device="cuda"),
                             torch.rand(ceil(n, 256), device="cuda"), maps, 3, decay, norm_sq, None, 1.0, 0))
                      for w, g, _, _ in sets])


# 8-bit AdamW ----------------------------------------------------------------------------------------------------

def dynamic_maps(device):
    from bitsandbytes import functional as F

    return F.create_dynamic_map(signed=True).to(device), F.create_dynamic_map(signed=False).to(device)


def step8(w, g, m, v, am, av, maps, *rest):
    step = step_args(w, g, m, v, *rest)
    s = Step8(step, maps[0].data_ptr(), maps[1].data_ptr(), am.data_ptr(), av.data_ptr())
    s.held = (step.held, maps, am, av)
    return s


def widen(q, code, absmax, n):
    """Codes times their block's absmax."""
    return (code[q.cpu().long()] * absmax.cpu().repeat_interleave(256)[:n]).numpy()


def quantize(x, code, signed):
    """Codes and absmax in blocks of 256: the nearest value, but a small number does not become 0 or lose its sign."""
    n = x.size
    x = torch.nn.functional.pad(torch.tensor(x), (0, -n % 256)).view(-1, 256)
    top = x.abs().amax(1)
    q = torch.bucketize((x * (1 / top.clamp(min=1e-38))[:, None]), (code[:-1] + code[1:]) / 2)
    if signed:
        q = torch.where((x < 0) & (code[q] >= 0), q - 1, q)
    else:
        q = torch.where((x > 0) & (q == 0), 1, q)
    return q.reshape(-1)[:n].to(torch.uint8), top


def adamw8(run):
    maps = dynamic_maps(run.device)
    code_m, code_v = [x.cpu() for x in maps]
    generator = torch.Generator().manual_seed(6)

    for n in (3, 256, 2500, 70_000):
        blocks = ceil(n, 256)
        w = (torch.randn(n, generator=generator) * 0.1).to(run.device)
        m, v = (torch.full((n,), int((c == 0).nonzero()[0]), dtype=torch.uint8, device=run.device) for c in (code_m, code_v))
        am, av = torch.zeros(blocks, device=run.device), torch.zeros(blocks, device=run.device)
        theirs = [x.clone() for x in (w, m, v, am, av)]
        decay = torch.tensor([0, n], dtype=torch.int64, device=run.device)
        ok, differ, total, peer = True, 0, 0, "bitsandbytes on " + run.device
        for t in range(1, 7):
            g = torch.randn(n, generator=generator) * 0.01 * t
            on = g.clone().to(run.device)
            hand = by_hand(w.cpu().numpy(), g.numpy(), widen(m, code_m, am, n), widen(v, code_v, av, n), t, True)
            run.launch("adamw.cu", "adamw_8bit", 2, 256,
                       step8(w, on, m, v, am, av, maps, t, decay, None, None, 1.0, ZERO_GRADS))
            ok &= torch.equal(w.cpu(), torch.tensor(hand[0])) and not on.any().item()
            for q, top, x, code in ((m, am, hand[1], code_m), (v, av, hand[2], code_v)):
                want_q, want_top = quantize(x, code, code is code_m)
                ok &= torch.equal(q.cpu(), want_q) and torch.equal(top.cpu(), want_top)
            torch.ops.bitsandbytes.optimizer_update_8bit_blockwise(
                "adam", g.to(run.device), theirs[0], theirs[1], theirs[2], BETA1, BETA2, 0.0, 0.0, EPS, t, LR,
                maps[0], maps[1], theirs[3], theirs[4], DECAY, 1.0, False)
            differ += int((m != theirs[1]).sum() + (v != theirs[2]).sum())
            total += 2 * n
        report(f"adamw_8bit of {n}, 6 steps by hand", ok)
        far = (w - theirs[0]).abs() / (6 * LR)
        report(f"adamw_8bit of {n} against {peer}", far.mean() < 0.01 and differ < 0.02 * total + 4,
               f"of 6 steps' move, values are {float(far.mean()):.1e} away on average, {float(far.max()):.1e} at most; "
               f"{differ} of {total} codes differ")
        # Small and zero gradients beside large ones: by hand only, a second moment may not become 0.
        g = torch.randn(n, generator=generator) * torch.rand(n, generator=generator) ** 8
        for t in range(7, 10):
            g = g if t == 7 else g * 0
            before = w.cpu().numpy().copy()
            hand = by_hand(before, g.numpy(), widen(m, code_m, am, n), widen(v, code_v, av, n), t, True)
            run.launch("adamw.cu", "adamw_8bit", 2, 256,
                       step8(w, g.clone().to(run.device), m, v, am, av, maps, t, decay, None, None, 1.0, ZERO_GRADS))
            ok &= torch.equal(w.cpu(), torch.tensor(hand[0]))
            for q, top, x, code in ((m, am, hand[1], code_m), (v, av, hand[2], code_v)):
                want_q, want_top = quantize(x, code, code is code_m)
                ok &= torch.equal(q.cpu(), want_q) and torch.equal(top.cpu(), want_top)
            ok &= float(np.abs(w.cpu().numpy() - before).max()) < 100 * LR
        report(f"adamw_8bit of {n}, small gradients by hand", ok)
    w2, m2 = w.clone(), m.clone()
    bad = torch.tensor([float("nan")], dtype=torch.float64, device=run.device)
    g = torch.ones(n, device=run.device)
    run.launch("adamw.cu", "adamw_8bit", 2, 256,
               step8(w2, g, m2, v, am, av, maps, 7, None, bad, None, 1.0, ZERO_GRADS))
    report("adamw_8bit left out on nan", torch.equal(w2, w) and torch.equal(m2, m) and not g.any().item())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fatbins")
    parser.add_argument("--host", action="store_true")
    parser.add_argument("--only", default="nf4,gguf,adamw")
    args = parser.parse_args()
    torch.set_num_threads(4)
    run = Host() if args.host else Card(args.fatbins)
    for part in args.only.split(","):
        {"nf4": nf4, "gguf": gguf_kernels, "adamw": adamw}[part](run)
    print(f"{len(failures)} failed" + ("" if not failures else ": " + ", ".join(failures)))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
