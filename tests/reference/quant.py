"""Prints the numbers that the tests in src/ops/quant8.rs and src/ops/nf4.rs expect.

    python tests/reference/quant.py

Needs torch, numpy and bitsandbytes 0.50. Long results are FNV-1a digests of their bytes. What bitsandbytes' CPU code
only approximates (the search for the nearest 8-bit code) is done here by the rule of its CUDA kernels.
"""

import numpy as np
import torch
from bitsandbytes import functional as F

import quant_cuda as q


def digest(x):
    h = 0xCBF29CE484222325
    for byte in np.ascontiguousarray(x).tobytes():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    return f"0x{h:016x}"


def numbers(n, seed):
    """-0.5..0.5, exact in f32: what `numbers` in the Rust tests makes."""
    i = np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed * 1000)
    return (((i * np.uint64(2654435761)) % 2**32 >> 8).astype(np.float32) / np.float32(2**24) - np.float32(0.5))


signed, unsigned = F.create_dynamic_map(signed=True), F.create_dynamic_map(signed=False)
print("dynamic maps:", digest(signed.numpy()), digest(unsigned.numpy()))

rows, cols = 72, 256
w = numbers(rows * cols, 1) * np.repeat(np.arange(rows * cols // 64) % 7 + 1, 64).astype(np.float32)
w[:64] = 0
packed, state = F.quantize_4bit(torch.from_numpy(w).view(rows, cols), blocksize=64, quant_type="nf4")
offset = state.absmax.double().mean().float()
x = torch.nn.functional.pad(state.absmax - offset, (0, -state.absmax.numel() % 256)).view(-1, 256)
nested = x.abs().amax(1)
codes = torch.bucketize((x * (1 / nested)[:, None]).reshape(-1)[:state.absmax.numel()], (signed[:-1] + signed[1:]) / 2)
codes = codes.to(torch.uint8)
double = F.QuantState(absmax=codes, shape=(rows, cols), dtype=torch.float32, blocksize=64, quant_type="nf4",
                      code=F.get_4bit_type("nf4", device="cpu"), offset=offset,
                      state2=F.QuantState(absmax=nested, code=signed, blocksize=256, dtype=torch.float32))
wide = F.dequantize_4bit(packed, double)
print("nf4 packed:", digest(packed.numpy()), "absmax:", digest(codes.numpy()), "nested:", nested.tolist(),
      "offset:", offset.item(), "bitsandbytes' own:", state.absmax.mean().item())
print("dequantized:", digest(wide.numpy()), wide[5, :4].tolist(), "against", w[5 * cols:5 * cols + 4].tolist())

n, inside = 700, np.arange(700) < 300
ours = [numbers(n, 2), torch.full((n,), 127, dtype=torch.uint8), torch.zeros(n, dtype=torch.uint8), torch.zeros(3), torch.zeros(3)]
theirs = [torch.from_numpy(ours[0].copy())] + [t.clone() for t in ours[1:]]
for t in range(1, 6):
    g = numbers(n, 10 + t) * np.float32(0.25)
    hand = q.by_hand(ours[0], g, q.widen(ours[1], signed, ours[3], n), q.widen(ours[2], unsigned, ours[4], n), t, inside)
    (m, am), (v, av) = q.quantize(hand[1], signed, True), q.quantize(hand[2], unsigned, False)
    ours = [hand[0], m, v, am, av]
    w0 = theirs[0].clone()
    torch.ops.bitsandbytes.optimizer_update_8bit_blockwise(
        "adam", torch.from_numpy(g), theirs[0], theirs[1], theirs[2], q.BETA1, q.BETA2, 0.0, 0.0, q.EPS, t, q.LR,
        signed, unsigned, theirs[3], theirs[4], 0.0, 1.0, False)
    theirs[0][torch.from_numpy(inside)] -= q.LR * q.DECAY * w0[torch.from_numpy(inside)]
print("8-bit AdamW:", *[digest(x) for x in (ours[0], ours[1].numpy(), ours[2].numpy(), ours[3].numpy(), ours[4].numpy())])
print("bitsandbytes' values:", theirs[0][[0, 100, 350, 699]].tolist(), "ours:", ours[0][[0, 100, 350, 699]].tolist())
