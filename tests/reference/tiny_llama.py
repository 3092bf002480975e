#!/usr/bin/env python3
"""Make tests/fixtures/tiny-llama: a random Llama of 2 layers with its own tokenizer and 32 rows, small enough to commit.

    tiny_llama.py OUT_DIR

The same comparison with TRL as on a real model, but offline. Numbers come from scripts/start_adapter.py's generator, so
the folder is the same every time. Untied head, grouped-query attention, ChatML. Needs `numpy` and `tokenizers`.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import plain_safetensors
from start_adapter import uniform
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THINGS = ["bridge", "lantern", "river", "clock", "garden", "violin", "harbour", "ladder"]
PLACES = ["north of the mill", "behind the school", "near the old station", "under the chestnut trees"]


def rows():
    out = []
    for i in range(32):
        thing, place, n = THINGS[i % 8], PLACES[(i // 3) % 4], 3 + i * 7 % 29
        if i % 3 == 0:
            user, answer = f"Where is the {thing}?", f"The {thing} is {place}."
        elif i % 3 == 1:
            user, answer = f"How many steps to the {thing}?\nCount from {place}.", f"It takes {n} steps."
        else:
            # Long enough that some rows are cut at 256 tokens.
            user = f"Tell me all about the {thing}."
            answer = " ".join(f"The {thing} {place} was {n + k} years old." for k in range(1 + i % 11))
        out.append([{"role": "user", "content": user}, {"role": "assistant", "content": answer}])
    return out


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: tiny_llama.py OUT_DIR")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "rows.jsonl", "w", encoding="utf-8") as f:
        for messages in rows():
            f.write(json.dumps({"messages": messages}) + "\n")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, special=True, normalized=False) for t in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([m["content"] for r in rows() for m in r], trainer)
    # One line: a third of the size of the indented form.
    (out / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n", encoding="utf-8")
    vocab, hidden, ffn, layers, heads, kv = tokenizer.get_vocab_size(), 32, 64, 2, 4, 2

    def write(name, value):
        (out / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    write("config.json", dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv, head_dim=hidden // heads,
        max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", attention_bias=False,
        mlp_bias=False, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0, torch_dtype="float32",
    ))  # fmt: skip
    write("generation_config.json", dict(bos_token_id=1, eos_token_id=[2, 0], pad_token_id=0))
    write("tokenizer_config.json", dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|endoftext|>", model_max_length=512, clean_up_tokenization_spaces=False, chat_template=CHATML,
    ))  # fmt: skip

    d = hidden // heads
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {
            f"{at}input_layernorm.weight": (hidden,), f"{at}post_attention_layernorm.weight": (hidden,),
            f"{at}self_attn.q_proj.weight": (heads * d, hidden), f"{at}self_attn.k_proj.weight": (kv * d, hidden),
            f"{at}self_attn.v_proj.weight": (kv * d, hidden), f"{at}self_attn.o_proj.weight": (hidden, heads * d),
            f"{at}mlp.gate_proj.weight": (ffn, hidden), f"{at}mlp.up_proj.weight": (ffn, hidden),
            f"{at}mlp.down_proj.weight": (hidden, ffn),
        }  # fmt: skip
    tensors = {}
    for stream, (name, shape) in enumerate(sorted(shapes.items()), 1000):
        # Wide enough that attention is far from uniform; norms around 1.
        def load(stream=stream, shape=shape):
            if len(shape) == 1:
                return 1.0 + 0.3 * uniform(stream, shape[0])
            return (uniform(stream, shape[0] * shape[1]) * 2.5 * shape[1] ** -0.5).reshape(shape)

        tensors[name] = (shape, load)
    plain_safetensors.write(out / "model.safetensors", tensors)
    print(f"{out}: vocabulary {vocab}, {sum(s[0] * (s[1] if len(s) > 1 else 1) for s in shapes.values()):,} parameters")


if __name__ == "__main__":
    main()
