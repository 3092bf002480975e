"""Numbers of transformers and PEFT that tests/families.rs compares with.

usage: python tests/reference/families.py [NAME…]    (writes tests/fixtures/families/NAME.{json,safetensors})

A random model of each family, small enough to keep: its config.json, and what PyTorch makes of two sequences (logits, summed
loss, gradients), for full tuning and for LoRA on all linear layers. Weights, adapters and ids come from a formula that the
test shares, so that only results are stored. Written with torch 2.15, transformers 5.23, PEFT 0.21.
"""
import json
import pathlib
import sys

import numpy
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "families"
LENGTHS = [23, 9]
shape = dict(vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
layers = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=8)
llama3 = dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
yarn = dict(rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=16)
longrope = dict(rope_type="longrope", rope_theta=500.0, partial_rotary_factor=0.75, short_factor=[1.0, 1.1, 1.2],
                long_factor=[1.5, 2.5, 4.0])
gemma_rope = dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=5000.0),
                  sliding_attention=dict(rope_type="default", rope_theta=100.0))
MODELS = {
    "llama": ("Llama", dict(attention_bias=True, mlp_bias=True, rope_parameters=llama3)),
    "qwen2": ("Qwen2", dict(use_sliding_window=True, sliding_window=8, max_window_layers=1, tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(head_dim=12, rope_parameters=yarn)),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=12, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20,
                                   norm_topk_prob=True)),
    "gpt_oss": ("GptOss", dict(head_dim=8, num_local_experts=4, num_experts_per_tok=2, intermediate_size=20, sliding_window=8,
                               swiglu_limit=1.0)),
    "mistral": ("Mistral", dict(sliding_window=8)),
    "gemma2": ("Gemma2", dict(head_dim=8, query_pre_attn_scalar=20, attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
                              **layers)),
    "gemma3": ("Gemma3", dict(head_dim=8, query_pre_attn_scalar=20, rope_parameters=gemma_rope, **layers)),
    "phi3": ("Phi3", dict(sliding_window=8)),
    "phi4": ("Phi3", dict(rope_parameters=longrope, original_max_position_embeddings=16, tie_word_embeddings=True)),
    "smollm3": ("SmolLM3", dict(no_rope_layer_interval=2, rope_parameters=dict(rope_type="default", rope_theta=500.0))),
}


def numbers(name, count):
    """-1 to 1 in steps of 1/128, the same for the same name: what `numbers` in tests/families.rs gives."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(seed) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z ^= z >> numpy.uint64(31)
    return torch.from_numpy(((z >> numpy.uint64(56)).astype(numpy.float32) - 128.0) / 128.0)


def parts(model):
    """(name, tensor, gradient) of every parameter as checkpoints name it: one a matrix, also where transformers stacks
    those of all experts."""
    for k, p in model.named_parameters():
        stack, _, kind = k.partition("mlp.experts.")
        if kind and p.shape[0] and hasattr(model.config, "swiglu_limit"):
            # gpt-oss: inputs first, gate and up in turn.
            bias = "bias" if kind.endswith("_bias") else "weight"
            matrix = kind.removesuffix("_bias")
            view = lambda t, at: None if t is None else (t[..., at] if bias == "bias" else t[..., at].transpose(-1, -2))
            for e in range(p.shape[0]):
                halves = {"gate_proj": slice(0, None, 2), "up_proj": slice(1, None, 2)}
                for name, at in halves.items() if matrix == "gate_up_proj" else [("down_proj", slice(None))]:
                    grad = None if p.grad is None else p.grad[e]
                    yield f"{stack}mlp.experts.{e}.{name}.{bias}", view(p[e], at), view(grad, at)
            continue
        rows = p.shape[1] // 2 if kind == "gate_up_proj" else None
        for e in range(p.shape[0]) if kind else []:
            names = ["gate_proj", "up_proj"] if rows else ["down_proj"]
            for n, name in enumerate(names):
                at = slice(n * rows, (n + 1) * rows) if rows else slice(None)
                yield f"{stack}mlp.experts.{e}.{name}.weight", p[e, at], None if p.grad is None else p.grad[e, at]
        if not kind:
            yield k, p, p.grad


def fill(name, p, offset):
    """A weight's numbers by its name; norms lie around 1, or around 0 where the family adds it."""
    scale = 0.5 if p.dim() == 1 or "embed_tokens" in name or "lora_B" in name else 0.25
    around = 1.0 if "norm" in name and not offset else 0.0
    with torch.no_grad():
        p.copy_(numbers(name, p.numel()).reshape(p.shape) * scale + around)


def sequences():
    for n, length in enumerate(LENGTHS):
        ids = ((numbers(f"ids{n}", length) + 1.0) * 128.0).long() % 45 + 3
        yield ids[None]


def run(model):
    model.zero_grad()
    logits, loss = [], 0.0
    for ids in sequences():
        out = model(input_ids=ids).logits
        labels = ids[:, 1:].clone()
        labels[0, :2] = -100
        loss = loss + torch.nn.functional.cross_entropy(out[0, :-1], labels[0], reduction="sum")
        logits.append(out[0].detach())
    loss.backward()
    return torch.cat(logits), loss.detach().reshape(1)


def family_has_experts(model):
    return any("experts" in k for k, _ in model.named_parameters())


def build(family, extra):
    name = family + ("TextConfig" if family == "Gemma3" else "Config")
    config = getattr(transformers, name)(**{**shape, **extra}, attn_implementation="eager")
    model = getattr(transformers, family + "ForCausalLM")(config).float()
    offset = family.startswith("Gemma")
    for k, p, _ in parts(model):
        fill(k, p, offset)
    return model, offset


def mxfp4():
    """A gpt-oss as its checkpoints are stored: layer 0's experts in MXFP4, layer 1's in floats; and the logits of both."""
    extra = {**MODELS["gpt_oss"][1], "intermediate_size": 32, "num_local_experts": 2, "num_experts_per_tok": 1}
    model, _ = build("GptOss", extra)
    folder = FIXTURES / "gpt_oss_mxfp4"
    packed = {}
    for matrix in ["gate_up_proj", "down_proj"]:
        p = dict(model.named_parameters())[f"model.layers.0.mlp.experts.{matrix}"]
        experts, inputs, outputs = p.shape
        random = lambda name, *shape: ((numbers(f"{matrix}_{name}", torch.Size(shape).numel()) + 1) * 128).reshape(shape)
        blocks = random("blocks", experts, outputs, inputs // 32, 16).to(torch.uint8)
        scales = (random("scales", experts, outputs, inputs // 32) % 4 + 121).to(torch.uint8)
        packed |= {f"model.layers.0.mlp.experts.{matrix}_blocks": blocks, f"model.layers.0.mlp.experts.{matrix}_scales": scales}
        with torch.no_grad():
            p.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
    save_file({"logits": run(model)[0]}, FIXTURES / "gpt_oss_mxfp4.safetensors")
    model.half().save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in stored.items() if k + "_blocks" not in packed}
    assert len(kept) == len(stored) - 2
    save_file(kept | packed, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    print("gpt_oss_mxfp4", (folder / "model.safetensors").stat().st_size, "bytes")


def main():
    FIXTURES.mkdir(exist_ok=True)
    if not sys.argv[1:] or "gpt_oss_mxfp4" in sys.argv:
        mxfp4()
    for name in [n for n in sys.argv[1:] if n in MODELS] or ([] if sys.argv[1:] else MODELS):
        model, offset = build(*MODELS[name])
        logits, loss = run(model)
        out = {"full.logits": logits, "full.loss": loss}
        out |= {f"full.grad.{k}": grad.clone() for k, _, grad in parts(model)}
        config = model.config.to_dict()
        # PEFT 0.21 also adapts stacked experts, as if they were the linear layers of transformers 4; we adapt attention there.
        target = ["q_proj", "k_proj", "v_proj", "o_proj"] if family_has_experts(model) else "all-linear"
        lora = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules=target, task_type="CAUSAL_LM")).train()
        plain = lambda k: k.removeprefix("base_model.model.").replace(".default.", ".")
        for k, p in lora.named_parameters():
            if "lora_" in k:
                fill(plain(k), p, offset)
        logits, loss = run(lora)
        out |= {"lora.logits": logits, "lora.loss": loss}
        out |= {f"lora.grad.{plain(k)}": p.grad.clone() for k, p in lora.named_parameters() if "lora_" in k}
        save_file({k: v.contiguous() for k, v in out.items()}, FIXTURES / f"{name}.safetensors")
        config["architectures"] = [type(model).__name__]
        (FIXTURES / f"{name}.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        print(name, (FIXTURES / f"{name}.safetensors").stat().st_size, "bytes;", {k: v.item() for k, v in out.items() if k.endswith("loss")})


if __name__ == "__main__":
    main()
