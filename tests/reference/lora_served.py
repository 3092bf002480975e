#!/usr/bin/env python3
"""An adapter beside its base against the merged model, both in llama.cpp: the greedy text of a prompt must be the same.

    lora_served.py BASE.gguf ADAPTER.gguf MERGED.gguf PROMPT

f32 or f16 files, so that rounding does not decide. Needs xllamacpp.
"""

import sys

import xllamacpp


def text(model, adapter, prompt):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = 512
    params.n_parallel = 1
    params.warmup = False
    if adapter:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = adapter, 1.0
        params.lora_adapters = [lora]
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": prompt, "max_tokens": 40, "temperature": 0})
    return answer["choices"][0]["text"] if isinstance(answer, dict) else answer


base, adapter, merged, prompt = sys.argv[1:5]
plain, beside, folded = text(base, None, prompt), text(base, adapter, prompt), text(merged, None, prompt)
print(f"base    {plain!r}\nbeside  {beside!r}\nmerged  {folded!r}")
assert beside == folded, "the adapter beside its base speaks otherwise than the merged model"
assert plain != beside, "the adapter changes nothing here: take another prompt"
