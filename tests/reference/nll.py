#!/usr/bin/env python3
"""Mean negative log-likelihood of a text's first 512 tokens: llama.cpp on the GGUF against transformers on the HF folder.

    nll.py MODEL.gguf HF_DIR TEXT OUT.json [--tokens 512]

Position i predicts token i + 1: 511 terms, no BOS (this model's tokenizer adds none). Needs torch, transformers and
xllamacpp, whose library exports llama.cpp's C functions; it has no Python call for logits, so they are called directly.
"""

import argparse
import ctypes
import glob
import json
import os
from ctypes import POINTER, Structure, c_bool, c_char, c_char_p, c_float, c_int8, c_int32, c_void_p

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import xllamacpp
from transformers import AutoModelForCausalLM, AutoTokenizer


class Params(Structure):
    """llama_model_params or llama_context_params, more bytes than either: only ever handed from one call to the next.

    Both are passed in memory by the x86-64 and AArch64 calling conventions, so the real size does not matter here."""

    _fields_ = [("bytes", c_char * 1024)]


class Batch(Structure):
    _fields_ = [
        ("n_tokens", c_int32), ("token", POINTER(c_int32)), ("embd", POINTER(c_float)), ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)), ("seq_id", POINTER(POINTER(c_int32))), ("logits", POINTER(c_int8)),
    ]  # fmt: skip


def llama_cpp(path, text, count):
    """(ids, logits [count, vocab]) by llama.cpp."""
    lib = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0])

    def bind(name, result, *args):
        f = getattr(lib, name)
        f.restype, f.argtypes = result, args
        return f

    bind("llama_backend_init", None)()
    model_params = bind("llama_model_default_params", Params)()
    model = bind("llama_model_load_from_file", c_void_p, c_char_p, Params)(path.encode(), model_params)
    vocab = bind("llama_model_get_vocab", c_void_p, c_void_p)(model)
    size = bind("llama_vocab_n_tokens", c_int32, c_void_p)(vocab)
    context_params = bind("llama_context_default_params", Params)()  # n_ctx 512, n_batch 2048
    context = bind("llama_init_from_model", c_void_p, c_void_p, Params)(model, context_params)
    bind("llama_set_n_threads", None, c_void_p, c_int32, c_int32)(context, 2, 2)

    raw = text.encode()
    ids = (c_int32 * len(raw))()
    tokenize = bind("llama_tokenize", c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)
    n = tokenize(vocab, raw, len(raw), ids, len(raw), False, True)
    assert n >= count, f"the text has {n} tokens, {count} are wanted"
    batch = bind("llama_batch_init", Batch, c_int32, c_int32, c_int32)(count, 0, 1)
    batch.n_tokens = count
    for i in range(count):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = ids[i], i, 1, 0, 1
    assert bind("llama_decode", c_int32, c_void_p, Batch)(context, batch) == 0
    row = bind("llama_get_logits_ith", POINTER(c_float), c_void_p, c_int32)
    return list(ids[:count]), torch.stack([torch.tensor(row(context, i)[:size]) for i in range(count)])


def mean_nll(logits, ids):
    return float(torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:])))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["gguf", "hf", "text", "out"]:
        ap.add_argument(name)
    ap.add_argument("--tokens", type=int, default=512)
    a = ap.parse_args()
    text = open(a.text, encoding="utf-8").read()
    ids, logits = llama_cpp(a.gguf, text, a.tokens)
    theirs = AutoTokenizer.from_pretrained(a.hf)(text, add_special_tokens=False).input_ids[: a.tokens]
    assert ids == theirs, "llama.cpp and tokenizer.json split the text differently"
    model = AutoModelForCausalLM.from_pretrained(a.hf, dtype=torch.float32)
    with torch.no_grad():
        hf = model(torch.tensor([ids])).logits[0]
    found = dict(
        text=os.path.basename(a.text), tokens=a.tokens, llama_cpp=mean_nll(logits, ids), transformers=mean_nll(hf, ids),
        first_ids=ids[:16], last_ids=ids[-16:], made_with=f"xllamacpp {xllamacpp.__version__}, torch {torch.__version__}",
    )  # fmt: skip
    print(json.dumps(found, indent=1), file=open(a.out, "w"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
