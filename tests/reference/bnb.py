#!/usr/bin/env python3
"""What bitsandbytes makes of matrices in NF4, and checkpoints that it has quantized.

    bnb.py MODEL_DIR OUT.json NESTED_DIR PLAIN_DIR

OUT.json: for several shapes digests of codes and of the blocks' largest magnitudes, and the offset of double quantization;
for each checkpoint a digest of every matrix, dequantized. NESTED_DIR and PLAIN_DIR: MODEL_DIR in 4 bits with and without
double quantization, as transformers saves it. Needs torch, transformers, accelerate and bitsandbytes 0.50; runs on the CPU.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import bitsandbytes
import numpy as np
import torch
import transformers
from bitsandbytes import functional as F
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

SHAPES = [(3, 64), (71, 37), (8, 96), (300, 128), (1, 33), (40, 1024)]


def digest(x):
    h = 0xCBF29CE484222325
    for byte in np.ascontiguousarray(x).tobytes():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    return f"{h:016x}"


def numbers(n, seed):
    """-0.5..0.5, exact in f32: what `numbers` in the Rust tests makes."""
    i = np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed * 1000)
    return ((i * np.uint64(2654435761)) % 2**32 >> 8).astype(np.float32) / np.float32(2**24) - np.float32(0.5)


def matrix(rows, cols):
    """Cubed, so that most weights are small as trained ones are."""
    w = numbers(rows * cols, 7)
    return torch.from_numpy(w * w * w).view(rows, cols)


def main():
    model, out, nested, plain = sys.argv[1:]
    shapes = []
    for rows, cols in SHAPES:
        codes, one = F.quantize_4bit(matrix(rows, cols), blocksize=64, quant_type="nf4")
        same, two = F.quantize_4bit(matrix(rows, cols), blocksize=64, quant_type="nf4", compress_statistics=True)
        assert torch.equal(codes, same)
        shapes.append(
            dict(rows=rows, cols=cols, codes=digest(codes.numpy()), absmax=digest(one.absmax.numpy()), offset=two.offset.item())
        )  # fmt: skip
    checkpoints = {}
    for folder, double in [(nested, True), (plain, False)]:
        four = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=torch.float32
        )  # fmt: skip
        m = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, quantization_config=four)
        m.save_pretrained(folder)
        checkpoints[os.path.basename(os.path.normpath(folder))] = {
            f"{name}.weight": digest(F.dequantize_4bit(l.weight.data, l.weight.quant_state).numpy())
            for name, l in m.named_modules()
            if isinstance(l, bitsandbytes.nn.Linear4bit)
        }
    made_with = f"torch {torch.__version__}, transformers {transformers.__version__}, bitsandbytes {bitsandbytes.__version__}"
    with open(out, "w") as f:
        json.dump(dict(made_with=made_with, shapes=shapes, checkpoints=checkpoints), f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
