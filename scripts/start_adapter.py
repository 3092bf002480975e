#!/usr/bin/env python3
"""Write a PEFT adapter to start from, the same numbers on every machine, with B not zero.

    start_adapter.py MODEL_DIR OUT_DIR [--r 8] [--alpha 16]

A fresh LoRA adapter has B = 0, so that for the first steps no gradient reaches A: an agreement found there says little.
This one is drawn from splitmix64 over a counter: uniform in ±1/sqrt(in) for A (PEFT's own range), ±0.02 for B.
Needs `numpy` only.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import plain_safetensors

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def uniform(stream, n):
    """`n` numbers in [-1, 1) from splitmix64 (Steele, Lea, Flood 2014) of a counter; `stream` picks the sequence."""
    with np.errstate(over="ignore"):
        z = (np.arange(n, dtype=np.uint64) + np.uint64(stream << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model")
    ap.add_argument("out")
    ap.add_argument("--r", type=int, default=8)
    ap.add_argument("--alpha", type=int, default=16)
    a = ap.parse_args()
    c = json.loads((Path(a.model) / "config.json").read_text())
    hidden, ffn = c["hidden_size"], c["intermediate_size"]
    dim = c.get("head_dim") or hidden // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    shapes = {  # (out, in)
        "q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q),
        "gate_proj": (ffn, hidden), "up_proj": (ffn, hidden), "down_proj": (hidden, ffn),
    }  # fmt: skip
    tensors = {}
    for layer in range(c["num_hidden_layers"]):
        for m in MODULES:
            block = "self_attn" if m in MODULES[:4] else "mlp"
            name = f"base_model.model.model.layers.{layer}.{block}.{m}"
            n_out, n_in = shapes[m]
            for side, shape, scale in [("A", (a.r, n_in), n_in**-0.5), ("B", (n_out, a.r), 0.02)]:
                stream = len(tensors) + 1

                def load(stream=stream, shape=shape, scale=scale):
                    return (uniform(stream, shape[0] * shape[1]) * scale).reshape(shape)

                tensors[f"{name}.lora_{side}.weight"] = (shape, load)
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    config = dict(
        peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path=None, r=a.r, lora_alpha=a.alpha,
        lora_dropout=0.0, bias="none", fan_in_fan_out=False, inference_mode=True, use_rslora=False, use_dora=False,
        modules_to_save=None, target_modules=MODULES,
    )  # fmt: skip
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    plain_safetensors.write(out / "adapter_model.safetensors", tensors)
    print(f"{out}: {len(tensors)} tensors, r {a.r}, alpha {a.alpha}")


if __name__ == "__main__":
    main()
