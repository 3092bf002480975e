"""The models of tests/reference/families.py as llama.cpp's own converter writes them, for tests/families_gguf.rs.

usage: python tests/reference/families_gguf.py LLAMA_CPP_DIR    (writes tests/fixtures/families/NAME.gguf)

LLAMA_CPP_DIR holds `conversion/`, as the llama-cpp-python source package does under vendor/llama.cpp. A GGUF does not keep
everything (a window of Qwen2's, Gemma's query_pre_attn_scalar, SmolLM3's interval), so the models here have what it does
keep. Without vocabulary; matrices in 16 bits, which hold these numbers exactly.
"""
import json
import pathlib
import sys
import tempfile

sys.path[:0] = [sys.argv[1], str(pathlib.Path(sys.argv[1]) / "gguf-py"), str(pathlib.Path(__file__).parent)]
import families
import gguf
from conversion import ModelBase, get_model_class

CHANGED = {
    "llama": dict(rope_parameters=dict(rope_type="default", rope_theta=500.0), attention_bias=True, mlp_bias=False),
    "qwen2": dict(tie_word_embeddings=True),
    "mistral": dict(sliding_window=None),
    "gemma2": dict(query_pre_attn_scalar=8, head_dim=8, sliding_window=8),
    "gemma3": dict(query_pre_attn_scalar=8, head_dim=8, sliding_window=8, rope_parameters=families.gemma_rope),
    "smollm3": dict(num_hidden_layers=4),
}

for name, (family, extra) in families.MODELS.items():
    if name == "gpt_oss":
        continue  # its GGUF holds MXFP4, which is not read
    model, _ = families.build(family, CHANGED.get(name, extra))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder) / name  # its name gets into the file
        model.save_pretrained(folder)
        # Gemma 3's converter counts the entries of the vocabulary.
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {str(i): i for i in range(48)}}, "added_tokens": []}))
        converter = get_model_class(type(model).__name__)
        converter.set_vocab = lambda self: None
        out = families.FIXTURES / f"{name}.gguf"
        converter(folder, gguf.LlamaFileType.MOSTLY_F16, out).write()
        config = json.loads((folder / "config.json").read_text())
        (families.FIXTURES / f"{name}.gguf.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        print(name, out.stat().st_size, "bytes")
