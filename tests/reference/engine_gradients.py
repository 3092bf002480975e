"""Numbers of transformers and PEFT that tests/engine_gradients.rs compares with.

usage: python tests/reference/engine_gradients.py    (writes tests/fixtures/engine_gradients.safetensors)

A random Llama small enough to keep: its weights, an adapter, a batch of two rows, and what PyTorch makes of them
(logits, summed loss, gradients), for LoRA and for full tuning. Written with torch 2.15, transformers 5.23, PEFT 0.21.
"""
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
shape = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=6, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
             rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0,
                                  high_freq_factor=4.0, original_max_position_embeddings=32))
model = LlamaForCausalLM(LlamaConfig(**shape, attn_implementation="eager")).float()
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.randn_like(p) * 0.2 + (1.0 if p.dim() == 1 else 0.0))
out = {f"base.{k}": v.clone() for k, v in model.state_dict().items() if k != "lm_head.weight"}
ids = torch.randint(3, 61, (2, 20))
labels = ids.clone()
labels[0, :7] = -100
labels[1, 12:] = -100


def run(m):
    m.zero_grad()
    logits = m(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 61), labels[:, 1:].reshape(-1), reduction="sum")
    loss.backward()
    return logits.detach(), loss.detach()


logits, loss = run(model)
out |= {"full.logits": logits, "full.loss": loss.reshape(1), "ids": ids.int(), "labels": labels.int()}
out |= {f"full.grad.{k}": p.grad.clone() for k, p in model.named_parameters()}
lora = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")).train()
with torch.no_grad():
    for k, p in lora.named_parameters():
        if "lora_" in k:
            p.copy_(torch.randn_like(p) * 0.3)
logits, loss = run(lora)
out |= {"lora.logits": logits, "lora.loss": loss.reshape(1)}
for k, p in lora.named_parameters():
    if "lora_" in k:
        name = k.removeprefix("base_model.model.").replace(".default.", ".")
        out |= {f"lora.value.{name}": p.detach().clone(), f"lora.grad.{name}": p.grad.clone()}
place = pathlib.Path(__file__).parent.parent / "fixtures" / "engine_gradients.safetensors"
save_file({k: v.contiguous() for k, v in out.items()}, place)
print(place, place.stat().st_size, "bytes;", {k: v.item() for k, v in out.items() if k.endswith("loss")})
