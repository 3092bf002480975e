#!/bin/sh
# Build the reference of src/export/quant and src/export/mixture: llama.cpp's own llama_model_quantize, from the
# sources that the sdist of llama-cpp-python carries, without its graphs, back ends and other architectures
# (about two minutes on two cores; the whole of it takes seventeen).
#
#   llama_quantize.sh llama_cpp_python-0.3.36.tar.gz OUT
#
# leaves OUT/llama-quantize (llama-quantize IN.gguf OUT.gguf TYPE THREADS). Plain x86-64: no fused multiply-add, as
# llama.cpp itself builds these files (ggml-base).
set -eu
sdist=$1 out=$2
mkdir -p "$out/src" "$out/obj"
tar xzf "$sdist" -C "$out/src" --strip-components=3 --wildcards '*/vendor/llama.cpp/ggml' '*/vendor/llama.cpp/src' \
    '*/vendor/llama.cpp/include' '*/vendor/llama.cpp/vendor'
cd "$out"
printf '#define GGML_VERSION "reference"\n#define GGML_COMMIT "reference"\n' > src/ggml/src/ggml-version.h
printf '#define LLAMA_VERSION "reference"\n' > src/src/llama-version.h
flags="-O3 -fPIC -w -DNDEBUG -D_GNU_SOURCE -Isrc/ggml/include -Isrc/ggml/src -Isrc/include -Isrc/src -Isrc/vendor"
cat > obj/main.cpp <<'END'
#include "llama.h"
#include "llama-model.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
int main(int argc, char ** argv) {
    if (argc != 5) { fprintf(stderr, "llama-quantize IN OUT TYPE THREADS\n"); return 2; }
    const std::map<std::string, int> types = {
        {"f32", 0}, {"f16", 1}, {"q4_0", 2}, {"q4_1", 3}, {"q8_0", 7}, {"q5_0", 8}, {"q5_1", 9}, {"q2_k", 10},
        {"q3_k_s", 11}, {"q3_k_m", 12}, {"q3_k_l", 13}, {"q4_k_s", 14}, {"q4_k_m", 15}, {"q5_k_s", 16},
        {"q5_k_m", 17}, {"q6_k", 18}, {"bf16", 32}};
    auto params = llama_model_quantize_default_params();
    params.ftype = (llama_ftype) types.at(argv[3]);
    params.nthread = atoi(argv[4]);
    params.allow_requantize = getenv("ALLOW_REQUANTIZE") != nullptr;
    llama_backend_init();
    return llama_model_quantize(argv[1], argv[2], &params);
}
END
{
    for f in ggml.c ggml.cpp ggml-alloc.c ggml-backend.cpp ggml-backend-meta.cpp ggml-opt.cpp ggml-quants.c \
        ggml-threading.cpp gguf.cpp ggml-backend-reg.cpp ggml-backend-dl.cpp; do echo "src/ggml/src/$f"; done
    for f in llama llama-arch llama-hparams llama-impl llama-mmap llama-model llama-model-loader llama-quant \
        llama-vocab unicode unicode-data models/llama models/qwen2 models/qwen3 models/qwen3moe models/gemma2 \
        models/gemma3 models/phi3 models/smollm3; do echo "src/src/$f.cpp"; done
    echo obj/main.cpp
} | xargs -P "$(nproc)" -I{} sh -c '
    o=obj/$(echo "{}" | tr / _).o
    case "{}" in *.c) cc -std=c11 '"$flags"' -c "{}" -o "$o" ;; *) c++ -std=c++17 '"$flags"' -c "{}" -o "$o" ;; esac || exit 255'
# What only other architectures, graphs and back ends would call is never called: it becomes abort().
link() { c++ -o llama-quantize obj/*.o "$@" -lpthread -ldl -lm; }
link -Wl,--no-demangle 2>&1 | sed -n "s/.*undefined reference to \`\(.*\)'/-Wl,--defsym,\1=abort/p" | sort -u > obj/undefined.rsp
link @obj/undefined.rsp
