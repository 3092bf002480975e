"""What llama.cpp's own converters make of a small model of every family, for tests/ship_families.rs.

usage: python tests/reference/ship_families.py LLAMA_CPP_DIR [NAME…]    (writes tests/fixtures/ship/NAME/)

LLAMA_CPP_DIR holds `conversion/`, `gguf-py/` and `convert_lora_to_gguf.py`, as the llama-cpp-python source package does under
vendor/llama.cpp. Written are a model folder without weights (configuration, a small tokenizer of the family's kind) and
`gguf.json`: keys with types and values, tensors with type, shape and SHA-256, of convert_hf_to_gguf.py at f16 and of
convert_lora_to_gguf.py at f32. Weights and adapters come from names by the formula of families.py, which the test shares.
Keys that come from a model card or a folder's name are left out, and so is the hash by which the converter tells a
tokenizer: one of 384 tokens is nobody's, so the name is given here. Needs torch, transformers, sentencepiece.
"""
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile

LLAMA_CPP = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(LLAMA_CPP), str(LLAMA_CPP / "gguf-py"), str(pathlib.Path(__file__).parent)]
import families
import gguf
import sentencepiece
import torch
from conversion import get_model_class
from safetensors.torch import save_file
from tiny_llama import CHATML, rows
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

FIXTURES = families.FIXTURES.parent / "ship"
TEXT = [m["content"] for r in rows() for m in r]
VOCABULARY = 384
RANK = 4

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

size = dict(vocab_size=VOCABULARY, hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=8,
            num_key_value_heads=2, max_position_embeddings=512, torch_dtype="float32")
llama3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=128)
longrope = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                short_factor=[1.0 + i / 16 for i in range(12)], long_factor=[1.0 + i / 2 for i in range(12)],
                original_max_position_embeddings=256)
# class, configuration, tokenizer, its name in llama.cpp
MODELS = {
    "llama": ("Llama", dict(attention_bias=True, rope_parameters=llama3), "byte", "llama-bpe"),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True), "byte", "qwen2"),
    "qwen3": ("Qwen3", dict(head_dim=64, rope_parameters=yarn), "byte", "qwen2"),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=64, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256,
                                   norm_topk_prob=True), "byte", "qwen2"),
    "mistral": ("Mistral", dict(sliding_window=None), "mistral", None),
    "gemma2": ("Gemma2", dict(head_dim=64, query_pre_attn_scalar=64, sliding_window=64, intermediate_size=512), "gemma", None),
    "gemma3": ("Gemma3Text", dict(head_dim=64, query_pre_attn_scalar=64, sliding_window=64, num_hidden_layers=6), "gemma", None),
    "phi3": ("Phi3", dict(sliding_window=2047, original_max_position_embeddings=512), "phi", None),
    "phi4": ("Phi3", dict(rope_parameters=longrope, original_max_position_embeddings=256, tie_word_embeddings=True,
                          sliding_window=None), "byte", "gpt-4o"),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=4), "byte", "llama-bpe"),
}  # fmt: skip


def put(folder, name, value):
    (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def byte_level(folder, pre):
    """Byte-level BPE; Llama 3's begins every text with a token."""
    bos = "<|begin_of_text|>" if pre == "llama-bpe" else None
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [bos] * bool(bos)
    split = {"llama-bpe": LLAMA3, "qwen2": QWEN2, "gpt-4o": GPT4O}[pre]
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.normalizer = normalizers.NFC() if pre == "qwen2" else None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    # Fewer tokens than rows of the embedding, as Qwen's.
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 24, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in marks])
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    if bos:
        ids = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", ids)
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    config = dict(tokenizer_class="GPT2Tokenizer" if pre == "gpt-4o" else "PreTrainedTokenizerFast", bos_token=bos,
                  eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=("{{ bos_token }}" if bos else "") + CHATML)  # fmt: skip
    ids = {role: tokenizer.token_to_id(t) for role, t in [("bos", bos or "<|endoftext|>"), ("eos", "<|im_end|>"), ("pad", "<|endoftext|>")]}
    write_tokenizer(folder, tokenizer, config)
    return ids


def sentence_piece(folder, kind):
    """SentencePiece, and its tokenizer.json as transformers' converters put it together."""
    gemma = kind == "gemma"
    roles = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<unk>", "<s>", "</s>"]
    marks = {"gemma": ["<start_of_turn>", "<end_of_turn>"], "mistral": ["[INST]", "[/INST]"], "phi": []}[kind]
    out = io.BytesIO()
    at = {role.strip("</>").replace("s", "bos" if role == "<s>" else "eos") if role in ("<s>", "</s>") else role.strip("<>"): i
          for i, role in enumerate(roles)}  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=out, model_type="bpe", vocab_size=VOCABULARY - 16, byte_fallback=True,
        user_defined_symbols=marks, add_dummy_prefix=not gemma, normalization_rule_name="identity", split_digits=True,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, pad_id=at.get("pad", -1), unk_id=at["unk"],
        bos_id=at["bos"], eos_id=at["eos"], unk_piece="<unk>", bos_piece=roles[at["bos"]], eos_piece=roles[at["eos"]],
        pad_piece="<pad>", num_threads=1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    vocab = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    plain = [i for i in range(model.get_piece_size()) if not (model.is_control(i) or model.is_unknown(i))]
    merges = []
    for i in plain:
        token = model.id_to_piece(i)
        if token in marks:
            continue
        pairs = [(vocab[token[:n]], vocab[token[n:]], token[:n], token[n:]) for n in range(1, len(token)) if token[:n] in vocab and token[n:] in vocab]
        merges += [(model.get_score(i), a, b) for _, _, a, b in sorted(pairs)]
    merges.sort(key=lambda m: (m[0], len(m[1]), len(m[2])), reverse=True)
    tokenizer = Tokenizer(models.BPE(vocab, [(a, b) for _, a, b in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tail = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if gemma:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence(tail)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(tail + [decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in roles + marks])
    if kind == "phi":
        more = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False, rstrip=False) for t in more])
        tokenizer.add_tokens([AddedToken("<|note|>", special=False, normalized=False)])
    bos, eos = roles[at["bos"]], "<|endoftext|>" if kind == "phi" else roles[at["eos"]]
    if kind != "phi":
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos}:0 $A:0", f"{bos}:0 $A:0 {bos}:1 $B:1", [(bos, at["bos"])])
    tokens = {t["id"]: t for t in json.loads(tokenizer.to_str())["added_tokens"]}
    decoder = {str(i): {k: v for k, v in t.items() if k != "id"} for i, t in sorted(tokens.items())}
    config = dict(tokenizer_class="GemmaTokenizer" if gemma else "LlamaTokenizer", bos_token=bos, eos_token=eos, unk_token="<unk>",
                  pad_token="<pad>" if gemma else eos, add_bos_token=kind != "phi", add_eos_token=False, added_tokens_decoder=decoder,
                  chat_template={"gemma": GEMMA, "mistral": MISTRAL, "phi": PHI}[kind])  # fmt: skip
    if kind == "mistral":
        config["add_prefix_space"] = True
    write_tokenizer(folder, tokenizer, config)
    ids = dict(bos=at["bos"], eos=tokenizer.token_to_id(eos), pad=tokenizer.token_to_id(config["pad_token"]))
    # Who speaks ends with a mark of its own.
    end = {"gemma": "<end_of_turn>", "phi": "<|end|>"}.get(kind)
    return ids | ({"ends": [ids["eos"], tokenizer.token_to_id(end)]} if end else {})


def write_tokenizer(folder, tokenizer, config):
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    put(folder, "tokenizer_config.json", {k: v for k, v in config.items() if v is not None})


def configuration(name, family, extra, ids):
    """As published models have it: rotary parameters in `rope_theta` and `rope_scaling`."""
    special = {f"{role}_token_id": ids[role] for role in ["bos", "eos", "pad"]}
    config = getattr(__import__("transformers"), family + "Config")(**{**size, **extra}, **special)
    value = config.to_dict()
    value["architectures"] = [family.removesuffix("Text") + "ForCausalLM"]
    rope = value.get("rope_parameters")
    if name == "gemma3":
        value["rope_theta"], value["rope_local_base_freq"] = rope["full_attention"]["rope_theta"], rope["sliding_attention"]["rope_theta"]
        value.pop("rope_parameters")
    elif name in ("llama", "qwen3"):
        value["rope_theta"] = rope.pop("rope_theta")
        value["rope_scaling"] = value.pop("rope_parameters")
    keep = ["chunk_size_feed_forward", "output_attentions", "output_hidden_states", "return_dict", "id2label", "label2id",
            "problem_type", "_name_or_path", "is_encoder_decoder", "use_cache", "transformers_version"]  # fmt: skip
    return {k: v for k, v in sorted(value.items()) if k not in keep}


def weights(folder):
    """Numbers by name for what this configuration's checkpoint holds."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    offset = type(model).__name__.startswith("Gemma")
    tensors = {}
    for name, p, _ in families.parts(model):
        around = 1.0 if "norm" in name and not offset else 0.0
        scale = 0.0625 if "embed_tokens" in name else 0.25 if p.dim() == 1 else 0.125
        tensors[name] = families.numbers(name, p.numel()).reshape(p.shape) * scale + around
    return tensors


def adapter(tensors, folder):
    """LoRA on every linear layer but the head and the experts."""
    out = {}
    for name, w in tensors.items():
        module = name.removesuffix(".weight")
        if w.dim() != 2 or "proj" not in module.rsplit(".", 1)[-1] or ".experts." in name:
            continue
        for side, shape in [("A", (RANK, w.shape[1])), ("B", (w.shape[0], RANK))]:
            key = f"{module}.lora_{side}.weight"
            out["base_model.model." + key] = families.numbers(key, shape[0] * shape[1]).reshape(shape) * 0.0625
    folder.mkdir()
    save_file(out, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    put(folder, "adapter_config.json", dict(peft_type="LORA", r=RANK, lora_alpha=6, base_model_name_or_path="tiny", target_modules=[]))


# What does not come from a model card or a folder's name.
GENERAL = ["architecture", "type", "name", "size_label", "file_type", "quantization_version", "sampling"]


def read(path):
    reader = gguf.GGUFReader(path)
    keys = {}
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key.startswith("general.") and key.split(".")[1] not in GENERAL:
            continue
        keys[key] = [[t.name for t in field.types], field.contents()]
    # The divisors of rotary frequencies come out of a power that torch does not round as others do.
    content = lambda t: t.data.tolist() if t.name.startswith("rope_") else hashlib.sha256(t.data.tobytes()).hexdigest()
    tensors = {t.name: [t.tensor_type.name, [int(n) for n in t.shape], content(t)] for t in reader.tensors}
    return dict(keys=dict(sorted(keys.items())), tensors=dict(sorted(tensors.items())))


def main():
    for name in sys.argv[2:] or MODELS:
        family, extra, kind, pre = MODELS[name]
        folder = FIXTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        ids = byte_level(folder, pre) if kind == "byte" else sentence_piece(folder, kind)
        put(folder, "config.json", configuration(name, family, extra, ids))
        put(folder, "generation_config.json", dict(eos_token_id=ids.get("ends", ids["eos"]), temperature=0.7, top_k=20, top_p=0.8))
        with tempfile.TemporaryDirectory() as work:
            work = pathlib.Path(work)
            for file in folder.iterdir():
                (work / file.name).write_bytes(file.read_bytes())
            tensors = weights(folder)
            save_file(tensors, work / "model.safetensors", metadata={"format": "pt"})
            converter = get_model_class(json.loads((work / "config.json").read_text())["architectures"][0])
            converter.get_vocab_base_pre = lambda self, tokenizer, pre=pre: pre
            converter(work, gguf.LlamaFileType.MOSTLY_F16, work / "model.gguf", model_name="tiny").write()
            adapter(tensors, work / "adapter")
            script = [sys.executable, LLAMA_CPP / "convert_lora_to_gguf.py", "--base", work, "--outfile", work / "lora.gguf", work / "adapter"]
            subprocess.run([str(s) for s in script], check=True, capture_output=True)
            found = read(work / "model.gguf")
            found["lora"] = read(work / "lora.gguf")
        (folder / "gguf.json").write_text(json.dumps(found, indent=None, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
        print(name, found["keys"]["general.size_label"][1], len(found["keys"]), "keys", len(found["tensors"]), "tensors", flush=True)


if __name__ == "__main__":
    main()
