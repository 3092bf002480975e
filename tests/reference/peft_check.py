#!/usr/bin/env python3
"""Does PEFT load an adapter of ours unchanged, and what logits does it give?

    peft_check.py HF_DIR ADAPTER_DIR IDS.json OUT.json [--compare LOGITS.json] [--within 1e-4]

IDS.json is a list of token ids. OUT.json gets {"logits": [[…], …]}: one row a position, f32. With --compare (a file of
the same form), the largest |a - b| must be within W times the largest |b|, else the exit status is 1.
Needs torch, transformers, peft.
"""

import argparse
import json
import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["hf", "adapter", "ids", "out"]:
        ap.add_argument(name)
    ap.add_argument("--compare")
    ap.add_argument("--within", type=float, default=1e-4)
    a = ap.parse_args()
    warnings.simplefilter("error", UserWarning)  # PEFT only warns of missing adapter keys
    ids = json.load(open(a.ids))
    base = AutoModelForCausalLM.from_pretrained(a.hf, dtype=torch.float32)
    with torch.no_grad():
        plain = base(torch.tensor([ids])).logits[0]
        logits = PeftModel.from_pretrained(base, a.adapter).eval()(torch.tensor([ids])).logits[0]
    json.dump(dict(logits=logits.tolist()), open(a.out, "w"))
    print(f"{len(ids)} positions; the adapter moves the logits by up to {(logits - plain).abs().max():.4g}")
    if a.compare:
        ours = torch.tensor(json.load(open(a.compare))["logits"])
        off = float((ours - logits).abs().max() / logits.abs().max())
        print(f"max |a - b| / max |b| = {off:.3g} (allowed {a.within:g})")
        sys.exit(off > a.within)


if __name__ == "__main__":
    main()
