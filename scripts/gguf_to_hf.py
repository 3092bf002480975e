#!/usr/bin/env python3
"""Turn a Llama GGUF with a byte-level BPE tokenizer into a Hugging Face folder, in float32.

    gguf_to_hf.py MODEL.gguf OUT_DIR

Needs `numpy` and `gguf` only: the safetensors file is written by hand, so that CI need not install torch.

What it does that is easy to get wrong:
- weights are dequantized to float32 (`gguf.quants.dequantize`), names mapped to Hugging Face's;
- llama.cpp stores the rows of q_proj and k_proj of this architecture permuted (pairs interleaved, for its own rotary
  embedding); they are put back, so that PEFT and transformers see Hugging Face's layout;
- the tokenizer is rebuilt as `tokenizer.json`: control tokens become special added tokens;
- `eos_token_id` of the GGUF goes into `config.json` and `generation_config.json`.
"""

import json
import sys
from pathlib import Path

import plain_safetensors
from gguf import GGUFReader
from gguf.quants import dequantize

# tokenizer.ggml.pre -> does the pre-tokenizer split digits one by one before GPT-2's own pattern?
# (llama.cpp's LLAMA_VOCAB_PRE_TYPE_SMOLLM: "\p{N}", then GPT-2's pattern.)
PRE_TOKENIZERS = {"smollm": True, "gpt-2": False}
CONTROL = 3  # gguf.TokenType.CONTROL
USER_DEFINED = 4  # gguf.TokenType.USER_DEFINED


def fail(what):
    sys.exit(f"gguf_to_hf: {what}")


def unpermute(w, heads):
    """Rows from llama.cpp's interleaved pairs back to Hugging Face's two halves. `w`: [heads * head_dim, in]."""
    out, cols = w.shape
    return w.reshape(heads, out // heads // 2, 2, cols).swapaxes(1, 2).reshape(out, cols)


def hf_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in whole:
        return whole[name]
    part = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    pieces = name.split(".")
    if len(pieces) != 4 or pieces[0] != "blk" or pieces[2] not in part or pieces[3] != "weight":
        fail(f"tensor {name} is not one of a Llama model")
    return f"model.layers.{pieces[1]}.{part[pieces[2]]}.weight"


def tokenizer_json(field):
    pre = field("tokenizer.ggml.pre")
    if field("tokenizer.ggml.model") != "gpt2" or pre not in PRE_TOKENIZERS:
        fail(f"tokenizer {field('tokenizer.ggml.model')}/{pre} is not known; known: gpt2 with {', '.join(PRE_TOKENIZERS)}")
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    added = [
        dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=k == CONTROL)
        for i, (t, k) in enumerate(zip(tokens, types))
        if k in (CONTROL, USER_DEFINED)
    ]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    digits = [dict(type="Digits", individual_digits=True)] if PRE_TOKENIZERS[pre] else []
    return dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=added,
        normalizer=None,
        pre_tokenizer=dict(type="Sequence", pretokenizers=digits + [byte_level]),
        post_processor=None,
        decoder=dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
        model=dict(
            type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
            fuse_unk=False, byte_fallback=False, ignore_merges=False,
            vocab={t: i for i, t in enumerate(tokens)},
            merges=[m.split(" ") for m in field("tokenizer.ggml.merges")],
        ),
    )  # fmt: skip


def main():
    if len(sys.argv) != 3:
        fail("usage: gguf_to_hf.py MODEL.gguf OUT_DIR")
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    if not source.is_file():
        fail(f"{source} is not a file")
    reader = GGUFReader(source)

    def field(name, default=None):
        found = reader.get_field(name)
        if found is None and default is None:
            fail(f"{source} has no {name}")
        return default if found is None else found.contents()

    if field("general.architecture") != "llama":
        fail(f"architecture {field('general.architecture')} is not llama")
    heads = field("llama.attention.head_count")
    kv_heads = field("llama.attention.head_count_kv", heads)
    hidden = field("llama.embedding_length")
    tied = all(t.name != "output.weight" for t in reader.tensors)
    tokens = field("tokenizer.ggml.tokens")
    bos, eos = field("tokenizer.ggml.bos_token_id"), field("tokenizer.ggml.eos_token_id")
    pad, unk = field("tokenizer.ggml.padding_token_id", eos), field("tokenizer.ggml.unknown_token_id", eos)

    tensors = {}
    for t in reader.tensors:
        shape = [int(d) for d in reversed(t.shape)]  # GGUF names the fastest dimension first
        name = hf_name(t.name)

        def load(t=t, shape=shape, name=name):
            w = dequantize(t.data, t.tensor_type).reshape(shape)
            if name.endswith("q_proj.weight"):
                return unpermute(w, heads)
            return unpermute(w, kv_heads) if name.endswith("k_proj.weight") else w

        tensors[name] = (shape, load)

    out.mkdir(parents=True, exist_ok=True)

    def write(name, value):
        (out / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    # llama.cpp writes float32 into the metadata: 1e-05 comes back as 9.99999974737875e-06.
    eps = float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}")
    write("config.json", dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=len(tokens), hidden_size=hidden,
        intermediate_size=field("llama.feed_forward_length"), num_hidden_layers=field("llama.block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=hidden // heads,
        max_position_embeddings=field("llama.context_length"), rms_norm_eps=eps,
        rope_theta=field("llama.rope.freq_base", 10000.0), rope_scaling=None, hidden_act="silu",
        attention_bias=False, attention_dropout=0.0, mlp_bias=False, initializer_range=0.02, pretraining_tp=1,
        tie_word_embeddings=tied, use_cache=True, torch_dtype="float32",
        bos_token_id=bos, eos_token_id=eos, pad_token_id=pad,
    ))  # fmt: skip
    write("generation_config.json", dict(bos_token_id=bos, eos_token_id=eos, pad_token_id=pad))
    write("tokenizer.json", tokenizer_json(field))
    write("tokenizer_config.json", dict(
        tokenizer_class="PreTrainedTokenizerFast", add_prefix_space=False, clean_up_tokenization_spaces=False,
        model_max_length=field("llama.context_length"), bos_token=tokens[bos], eos_token=tokens[eos],
        pad_token=tokens[pad], unk_token=tokens[unk], chat_template=field("tokenizer.chat_template"),
    ))  # fmt: skip
    # Last: a folder with weights is a whole folder.
    plain_safetensors.write(out / "model.safetensors", tensors)
    print(f"{out}: {len(tensors)} tensors, vocabulary {len(tokens)}, tied head: {tied}")


if __name__ == "__main__":
    main()
