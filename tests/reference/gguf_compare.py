"""Two GGUF files compared key by key and tensor by tensor.

    PY tests/reference/gguf_compare.py A.gguf B.gguf

Prints every difference; exit code 1 where there is one. Made for: the file of llama.cpp's convert_hf_to_gguf.py against
that of `finetop export`, whose tensors stand in llama-quantize's order.
"""

import sys

import numpy as np
from gguf import GGUFReader


def keys(reader):
    return {k: (f.types, f.contents()) for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def main():
    a, b = (GGUFReader(path) for path in sys.argv[1:3])
    different = 0
    ka, kb = keys(a), keys(b)
    for key in sorted(ka.keys() | kb.keys()):
        if ka.get(key) != kb.get(key):
            different += 1
            print(f"key {key}: {str(ka.get(key))[:120]} | {str(kb.get(key))[:120]}")
    ta, tb = ({t.name: t for t in r.tensors} for r in (a, b))
    for name in sorted(ta.keys() | tb.keys()):
        x, y = ta.get(name), tb.get(name)
        same = x is not None and y is not None and x.tensor_type == y.tensor_type and list(x.shape) == list(y.shape)
        if not same or not np.array_equal(x.data, y.data):
            different += 1
            print(f"tensor {name}: {x and (x.tensor_type.name, list(x.shape))} | {y and (y.tensor_type.name, list(y.shape))}")
    print(f"{len(ka)} and {len(kb)} keys, {len(ta)} and {len(tb)} tensors, {different} differences")
    sys.exit(1 if different else 0)


main()
