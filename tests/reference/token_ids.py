#!/usr/bin/env python3
"""Ids that llama.cpp gives for a set of texts: token_ids.py MODEL.gguf OUT.json

Needs xllamacpp, whose library exports llama.cpp's C functions. The texts are chosen for what pre-tokenizers do differently: digits, contractions, runs of spaces,
line breaks, scripts without spaces, emoji, combining marks, control tokens.
"""

import ctypes
import glob
import json
import os
import sys
from ctypes import POINTER, Structure, c_bool, c_char, c_char_p, c_int32, c_void_p

import xllamacpp


class Params(Structure):
    """llama_model_params, more bytes than it has: only handed from one call to the next, in memory."""

    _fields_ = [("bytes", c_char * 1024)]


TEXTS = [
    "Hello, world!",
    "I'm sure they've said it's 'fine', we'll see; DON'T",
    "  two spaces,   three,\ttab\n\n\nlines \r\n end ",
    "1 12 123 1234 12345 3.14159 1,000,000 2026-11-24",
    "def f(x):\n    return x ** 2  # squared\n",
    "Grüße aus Köln, où ça, ñandú, cafe\u0301",
    "東京は日本の首都です。北京是中国的首都。",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם",
    "🦀🦀 👩‍👩‍👧 ✅ ½ ² Ⅷ ٣",
    "https://example.org/a_b?c=d&e=%20#f <b>bold</b> {\"k\": [1, 2]}",
    "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n",
    "x<|endoftext|>y <|im_end|> z",
    "\n",
    " ",
    "a",
    "",
]


def llama_cpp(path):
    """text -> ids, special tokens in the text recognised, none added."""
    lib = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0])

    def bind(name, result, *args):
        f = getattr(lib, name)
        f.restype, f.argtypes = result, args
        return f

    bind("llama_backend_init", None)()
    params = bind("llama_model_default_params", Params)()
    model = bind("llama_model_load_from_file", c_void_p, c_char_p, Params)(path.encode(), params)
    vocab = bind("llama_model_get_vocab", c_void_p, c_void_p)(model)
    tokenize = bind("llama_tokenize", c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)

    def ids_of(text):
        raw = text.encode()
        ids = (c_int32 * (len(raw) + 1))()
        n = tokenize(vocab, raw, len(raw), ids, len(raw) + 1, False, True)
        assert n >= 0, text
        return list(ids[:n])

    return ids_of


ids_of = llama_cpp(sys.argv[1])
vectors = [{"text": text, "ids": ids_of(text)} for text in TEXTS]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    lines = ",\n".join("  " + json.dumps(vector, ensure_ascii=False) for vector in vectors)
    file.write(f'{{"made_with": "xllamacpp {xllamacpp.__version__}", "vectors": [\n{lines}\n]}}\n')
