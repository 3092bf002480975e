"""What llama.cpp makes of every type of export, beside this program: perplexity of one text, in windows of 512 tokens.

    ship_served.py FINETOP NLL TEXT WINDOWS OUT.json [--quantize LLAMA_QUANTIZE] MODEL …

MODEL is a folder (one of tests/fixtures/ship is laid out with its weights first) or a .gguf. FINETOP exports it to each type;
NLL is the built example of that name. Three perplexities a file:

    ours       this program: the file's weights, dequantized, times activations in f32
    as f32     llama.cpp on a file of the same weights in f32, dequantized by gguf-py: the same arithmetic, so it must agree
    as it is   llama.cpp on the file: it rounds activations to 8 bits (16 in 16-bit files) before it multiplies

TYPES in the environment names some of them. With llama-quantize given, files made from one f16 GGUF by both are compared byte
by byte. Needs xllamacpp, gguf, torch, numpy.
"""

import ctypes
import hashlib
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_void_p

import gguf
import numpy
import torch
from nll import Batch, Params, xllamacpp

TYPES = ("f32 f16 bf16 q8_0 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0 q3_k_l q3_k_m q3_k_s q2_k").split()
WINDOW = 512


def llama_cpp():
    import glob

    lib = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0])

    def bind(name, result, *args):
        f = getattr(lib, name)
        f.restype, f.argtypes = result, args
        return f

    bind("llama_log_set", None, c_void_p, c_void_p)(ctypes.cast(QUIET, c_void_p), None)
    bind("llama_backend_init", None)()
    return bind


QUIET = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)(lambda *_: None)


def perplexity(bind, path, text, windows):
    model = bind("llama_model_load_from_file", c_void_p, c_char_p, Params)(str(path).encode(), bind("llama_model_default_params", Params)())
    assert model, f"llama.cpp does not load {path}"
    vocab = bind("llama_model_get_vocab", c_void_p, c_void_p)(model)
    size = bind("llama_vocab_n_tokens", c_int32, c_void_p)(vocab)
    context = bind("llama_init_from_model", c_void_p, c_void_p, Params)(model, bind("llama_context_default_params", Params)())
    bind("llama_set_n_threads", None, c_void_p, c_int32, c_int32)(context, 2, 2)
    memory = bind("llama_get_memory", c_void_p, c_void_p)(context)
    raw = text.encode()
    ids = (c_int32 * (len(raw) + 8))()
    tokenize = bind("llama_tokenize", c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)
    n = tokenize(vocab, raw, len(raw), ids, len(ids), False, True)
    assert n > 0
    total, count = 0.0, 0
    for start in range(0, min(n, windows * WINDOW), WINDOW):
        own = list(ids[start : min(start + WINDOW, n)])
        bind("llama_memory_clear", None, c_void_p, c_bool)(memory, True)
        batch = bind("llama_batch_init", Batch, c_int32, c_int32, c_int32)(len(own), 0, 1)
        batch.n_tokens = len(own)
        for i, token in enumerate(own):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        assert bind("llama_decode", c_int32, c_void_p, Batch)(context, batch) == 0
        row = bind("llama_get_logits_ith", POINTER(c_float), c_void_p, c_int32)
        logits = torch.stack([torch.from_numpy(numpy.ctypeslib.as_array(row(context, i), (size,)).copy()) for i in range(len(own) - 1)])
        total += float(torch.nn.functional.cross_entropy(logits.double(), torch.tensor(own[1:]), reduction="sum"))
        count += len(own) - 1
        bind("llama_batch_free", None, Batch)(batch)
    bind("llama_free", None, c_void_p)(context)
    bind("llama_model_free", None, c_void_p)(model)
    return math.exp(total / count), count


def in_f32(path, out):
    """The same file with every tensor dequantized by gguf-py."""
    reader = gguf.GGUFReader(path)
    keys = reader.data[24 : reader.tensors[0].field.offset].tobytes()
    values = [gguf.quants.dequantize(t.data, t.tensor_type).astype(numpy.float32) for t in reader.tensors]
    infos, at = b"", 0
    for t, v in zip(reader.tensors, values):
        infos += struct.pack("<Q", len(t.name)) + t.name.encode() + struct.pack("<I", len(t.shape))
        infos += b"".join(struct.pack("<Q", int(n)) for n in t.shape) + struct.pack("<IQ", 0, at)
        at += -(-v.nbytes // 32) * 32
    head = reader.data[:24].tobytes() + keys + infos
    with open(out, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for v in values:
            f.write(v.tobytes() + bytes(-v.nbytes % 32))


def lay(folder, work):
    """A fixture's folder with its weights."""
    import ship_families

    for file in folder.iterdir():
        (work / file.name).write_bytes(file.read_bytes())
    ship_families.save_file(ship_families.weights(work), work / "model.safetensors", metadata={"format": "pt"})


def measure(finetop, nll, text_file, windows, quantize, model, work):
    name = label = pathlib.Path(model).stem.split(".")[0]
    source = model
    if not str(model).endswith(".gguf") and not (pathlib.Path(model) / "model.safetensors").exists():
        (work / name).mkdir()
        lay(pathlib.Path(model), work / name)
        source, label, name = work / name, name, "tiny"
    bind, text, rows = llama_cpp(), open(text_file, encoding="utf-8").read(), {}
    first = None
    # f16 first: the others are made from it too.
    for kind in sorted(os.environ.get("TYPES", " ".join(TYPES)).split(), key=lambda t: t != "f16"):
        subprocess.run([finetop, "export", source, "--gguf", kind, "--name", name, "--no-verify", "--out", work / "out"], check=True, capture_output=True)
        path = work / "out" / f"{name}.{kind.upper()}.gguf"
        ours = json.loads(subprocess.run([nll, text_file, "--windows", str(windows), path], check=True, capture_output=True).stdout)
        plain = work / "f32.gguf"
        in_f32(path, plain)
        row = dict(ours=math.exp(ours[path.name]), as_f32=perplexity(bind, plain, text, windows)[0])
        row["as_it_is"], row["tokens"] = perplexity(bind, path, text, windows)
        if kind == "f16":
            first = path
        elif quantize:
            theirs = work / "theirs.gguf"
            subprocess.run([quantize, first, theirs, kind, "2"], check=True, capture_output=True)
            subprocess.run([finetop, "export", first, "--gguf", kind, "--no-verify", "--out", work / "again"], check=True, capture_output=True)
            again = next((work / "again").glob("*.gguf"))
            row["bytes_equal"] = again.read_bytes() == theirs.read_bytes()
            row["llama_quantize"] = hashlib.sha256(theirs.read_bytes()).hexdigest()
            again.unlink()
        rows[kind] = row
        off = lambda key: 100 * (row[key] / row["ours"] - 1)
        print(f"{label:10} {kind:7} ours {row['ours']:9.3f}  as f32 {off('as_f32'):+7.3f} %  as it is {off('as_it_is'):+7.3f} %  {row.get('bytes_equal', '')}", flush=True)
        if path != first:
            path.unlink()
    return rows


def digests(found, out):
    """Of llama-quantize's files, by model and type."""
    kept = {m: {k: row["llama_quantize"] for k, row in rows.items() if "llama_quantize" in row} for m, rows in json.load(open(found)).items()}
    pathlib.Path(out).write_text(json.dumps(kept, indent=1) + "\n")


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--digests"]:
        return digests(*arguments[1:])
    quantize = None
    if "--quantize" in arguments:
        at = arguments.index("--quantize")
        quantize = arguments[at + 1]
        del arguments[at : at + 2]
    finetop, nll, text, windows, out, *models = arguments
    sys.argv = sys.argv[:1] + [os.environ.get("LLAMA_CPP", ".")]  # for ship_families
    found = {}
    for model in models:
        with tempfile.TemporaryDirectory() as work:
            found[pathlib.Path(model).stem] = measure(finetop, nll, text, int(windows), quantize, model, pathlib.Path(work))
        json.dump(found, open(out, "w"), indent=1)


if __name__ == "__main__":
    main()
