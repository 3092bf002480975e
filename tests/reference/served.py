#!/usr/bin/env python3
"""What llama.cpp makes of exported files: each loads, its mean negative log-likelihood of a text, and whether chats end.

    served.py TEXT OURS.json FILE.gguf …

OURS.json says this program's own mean NLL of the same 512 tokens by file name (`cargo run --example nll -- TEXT FILE …`).
Perplexities of 16-bit files must agree within 0.5 %. llama.cpp multiplies quantized weights with activations that it
rounds to 8 bits, and this program with the dequantized weights in f32: there, 1.5 %. Needs xllamacpp and torch.
"""

import json
import math
import os
import sys

import xllamacpp
from nll import llama_cpp, mean_nll

CHATS = ["What is the capital of France?", "Write one sentence about the sea.", "Name three colours."]


def ends(path):
    """How many chats end before 256 tokens, greedily, rendered through the file's own template."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 1024
    params.n_parallel = 1
    params.use_jinja = True
    params.warmup = False
    server = xllamacpp.Server(params)
    done = 0
    for text in CHATS:
        answer = server.handle_chat_completions(
            {"messages": [{"role": "user", "content": text}], "max_tokens": 256, "temperature": 0}
        )
        if isinstance(answer, str):
            answer = json.loads(answer)
        done += answer["choices"][0]["finish_reason"] == "stop"
    return done


def main():
    text, ours = open(sys.argv[1], encoding="utf-8").read(), json.load(open(sys.argv[2]))
    bad = 0
    for path in sys.argv[3:]:
        ids, logits = llama_cpp(path, text, 512)
        theirs, mine = math.exp(mean_nll(logits, ids)), math.exp(ours[os.path.basename(path)])
        difference = abs(mine - theirs) / theirs
        bad += difference > (0.005 if "F16" in path or "F32" in path else 0.015)
        print(f"{os.path.basename(path)}: perplexity {theirs:.3f}, ours {mine:.3f} ({100 * difference:.2f} %), {ends(path)} of {len(CHATS)} chats end", flush=True)
    sys.exit(1 if bad else 0)


main()
