# The usual ways of working on finetop. `just` alone lists them.

default:
    @just --list

# The program, as it is meant to run.
build:
    cargo build --release

# Everything that needs no network.
test *ARGS:
    cargo test {{ARGS}}

# What a change must pass before it is looked at.
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# What CI does, all of it.
ci:
    .ci/run

# The built-in demo in the console.
demo:
    cargo run --release -- demo

# Speed and memory on this machine.
bench *ARGS:
    cargo run --release -- bench {{ARGS}}

# Real models, rows and templates, into assets/ (not committed).
assets:
    scripts/fetch-assets.sh

# The tests again, with those assets.
test-assets *ARGS: assets
    FINETOP_ASSETS={{justfile_directory()}}/assets cargo test {{ARGS}}

# Fine-tune a real model on real rows.
smollm2: assets
    cargo run --release -- train recipes/smollm2-alpaca.toml

# Review changed console snapshots.
shots:
    cargo insta review

# The demo's model from nothing: its texts, its tokenizer, pre-training, chats (about 20 minutes on 2 cores).
demo-model:
    recipes/demo/make.sh
