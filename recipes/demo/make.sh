#!/usr/bin/env bash
# The demo's model from nothing, with finetop itself: texts, tokenizer and random weights (examples/make_demo_data.rs),
# full pre-training on the texts, full SFT on the chats, then bf16 into recipes/demo/model/. 11 minutes on 2 busy cores.
#
#   recipes/demo/make.sh
#
# The model in the repository was made by these steps. The texts are the same on every machine; the losses equal to the
# last digit only on the same machine and thread count. The demo's rows may change without a new model as long as their
# words and characters are the texts' own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cargo build --release --bin finetop --example make_demo_data
finetop=target/release/finetop make=target/release/examples/make_demo_data work=target/demo

rm -rf "$work"
"$make" "$work"
"$finetop" train recipes/demo/pretrain.toml --run-dir "$work/runs/pretrain"
"$finetop" train recipes/demo/chat.toml --run-dir "$work/runs/chat"
last=$(find "$work/runs/chat/checkpoints" -maxdepth 1 -name 'step-*' | sort -t- -k2 -n | tail -n 1)
"$make" --pack "$last" recipes/demo/model
du -h recipes/demo/model/*
