"""PEFT's other adapters over the tiny models of families.py: what tests/families.rs compares with.

usage: python tests/reference/adapters.py [NAME…]    (writes tests/fixtures/families/adapters/NAME/)

Each folder has what PEFT's save_pretrained writes, and numbers.safetensors: logits, summed loss and gradients of what trains.
Numbers of weights and adapters come from the formula of families.py. Written with torch 2.15, transformers 5.23, PEFT 0.21.
"""
import pathlib
import shutil
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from families import FIXTURES, MODELS, build, fill, run

BOTH = ["embed_tokens", "lm_head"]
CASES = {
    # name: (model, arguments of LoraConfig)
    "rslora_layers": ("llama", dict(use_rslora=True, target_modules=["q_proj", "v_proj", "up_proj", "o_proj"],
                                    exclude_modules=["o_proj"], layers_to_transform=[1])),
    "pattern": ("qwen3", dict(target_modules=r".*\.(0\.self_attn\.(q|k)_proj|1\.mlp\.down_proj)")),
    "dora": ("llama", dict(use_dora=True, target_modules="all-linear")),
    "dora_rslora_fused": ("phi3", dict(use_dora=True, use_rslora=True, target_modules="all-linear")),
    "dora_some": ("gemma2", dict(use_dora=True, target_modules=["k_proj", "gate_proj", "down_proj"])),
    "tables": ("llama", dict(target_modules=["q_proj", "down_proj"], modules_to_save=BOTH)),
    "head": ("qwen3", dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "tied_tables": ("qwen2", dict(target_modules=["q_proj"], modules_to_save=BOTH, ensure_weight_tying=True)),
    "tied_scaled_table": ("gemma3", dict(target_modules=["o_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
}


def plain(name):
    """A trainable's name as PEFT saves it, less what it puts before it."""
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.default.", ".").replace(".default.", ".")
    return name.removesuffix(".weight") if "magnitude" in name else name


def numbered(name, p, offset):
    if "magnitude" in name:
        # Near the rows' own lengths, as after some training.
        start = p.detach().clone()
        fill(name, p, offset)
        with torch.no_grad():
            p.copy_(start * (1.0 + 0.5 * p))
    elif "lora_" in name:
        fill(name, p, offset)
    else:
        start = p.detach().clone()
        fill("tuned." + name, p, offset)
        with torch.no_grad():
            p.copy_(start + 0.25 * p)


def main():
    for name in sys.argv[1:] or CASES:
        base, arguments = CASES[name]
        model, offset = build(*MODELS[base])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lora = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, task_type="CAUSAL_LM", **arguments)).train()
        trained = [(plain(k), p) for k, p in lora.named_parameters() if p.requires_grad]
        for k, p in trained:
            numbered(k, p, offset)
        logits, loss = run(lora)
        out = {"logits": logits, "loss": loss} | {f"grad.{k}": p.grad.clone() for k, p in trained}
        folder = FIXTURES / "adapters" / name
        shutil.rmtree(folder, ignore_errors=True)
        lora.peft_config["default"].base_model_name_or_path = base
        lora.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        save_file({k: v.contiguous() for k, v in out.items()}, folder / "numbers.safetensors")
        print(name, base, f"{loss.item():.4f}", len(trained), "trainables", sum(f.stat().st_size for f in pathlib.Path(folder).iterdir()), "bytes")


if __name__ == "__main__":
    main()
