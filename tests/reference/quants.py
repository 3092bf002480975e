"""Digests of llama.cpp's quantized rows, for src/export/quant.

    PY tests/reference/quants.py tests/fixtures/quants.json

Rows come from integers, so that every language makes the same f32 values; xllamacpp's library is llama.cpp's own
`ggml_quantize_chunk`. A digest is FNV-1a (64 bits) of a row's bytes.
"""

import ctypes
import glob
import importlib.metadata
import json
import os
import sys

import numpy as np
import xllamacpp

KINDS = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "BF16": (30, 1, 2),
}
COLUMNS = 2048
CASES = [
    "uniform", "bell", "outliers", "positive", "negative", "sparse", "constant", "zeros", "tiny", "denormal",
    "halves", "one", "steps", "mixed_scales",
]


def bits(seed, n):
    """xorshift32, a number a value."""
    out, s = np.empty(n, dtype=np.uint32), seed
    for i in range(n):
        s ^= (s << 13) & 0xFFFFFFFF
        s ^= s >> 17
        s ^= (s << 5) & 0xFFFFFFFF
        out[i] = s
    return out


def row(case):
    f, n = np.float32, COLUMNS
    seed = 0x9E3779B9 ^ (CASES.index(case) + 1)
    b = bits(seed, 4 * n).reshape(n, 4).astype(np.int64)
    u = (((b[:, 0] >> 8) - (1 << 23)).astype(f)) / f(1 << 23)  # -1 .. 1, exact
    i = np.arange(n)
    if case == "uniform":
        return u
    if case in ("bell", "sparse", "outliers", "mixed_scales"):
        # A sum of four: exact in f32, as each has 16 bits.
        bell = ((b >> 16).sum(axis=1) - (1 << 17)).astype(f) / f(1 << 21)
        if case == "outliers":
            return np.where(i % 97 == 0, bell * f(32), bell).astype(f)
        if case == "sparse":
            return np.where(b[:, 1] % 5 == 0, bell, f(0)).astype(f)
        if case == "mixed_scales":
            return (bell * (f(2) ** (-(i // 16 % 24)).astype(f))).astype(f)
        return bell
    if case == "positive":
        return np.abs(u) + f(0.25)
    if case == "negative":
        return -np.abs(u)
    if case == "constant":
        return np.full(n, 0.37, dtype=f)
    if case == "zeros":
        return np.where(i % 2 == 0, f(0.0), f(-0.0)).astype(f)
    if case == "tiny":
        return u * f(2) ** f(-60)
    if case == "denormal":
        return u * f(2) ** f(-133)
    if case == "halves":
        return ((b[:, 0] % 255) - 127).astype(f) / f(2)
    if case == "one":
        return np.where(i % 256 == 77, f(-1.5), f(0)).astype(f)
    if case == "steps":
        return ((b[:, 0] % 31) - 15).astype(f)


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def main():
    path = glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "xllamacpp*.so"))[0]
    chunk = ctypes.CDLL(path).ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    rows = {}
    for case in CASES:
        x = np.ascontiguousarray(row(case), dtype=np.float32)
        assert np.isfinite(x).all(), case
        digests = {"input": fnv(x.tobytes())}
        for name, (kind, block, size) in KINDS.items():
            out = np.zeros(COLUMNS // block * size, dtype=np.uint8)
            written = chunk(kind, x.ctypes.data, out.ctypes.data, 0, 1, COLUMNS, None)
            assert written == out.size, (case, name, written)
            digests[name] = fnv(out.tobytes())
        rows[case] = digests
    made_with = {"xllamacpp": importlib.metadata.version("xllamacpp"), "numpy": np.__version__}
    with open(sys.argv[1], "w") as f:
        json.dump({"made_with": made_with, "columns": COLUMNS, "rows": rows}, f, indent=1)
        f.write("\n")


main()
