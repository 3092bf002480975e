"""Write float32 tensors as a safetensors file, without torch or the safetensors package.

The format: u64 length of the header, a JSON header, the raw little-endian data.
"""

import json
import os
import struct


def write(path, tensors):
    """`tensors`: name -> (shape, function that returns the numpy array); one array is in memory at a time."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, _) in tensors.items():
        size = 4
        for d in shape:
            size *= d
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = f"{path}.part"  # renamed in: a file that is there is whole
    with open(part, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for _, load in tensors.values():
            f.write(load().astype("<f4").tobytes())
    os.replace(part, path)
