#!/usr/bin/env python3
"""Prompts with answers from reasoning-gym, as JSON lines for `finetop` (recipes/grpo.toml).

    pip install reasoning-gym==0.1.25
    python scripts/reasoning_gym_rows.py assets/reasoning-gym/chain_sum.jsonl [--task chain_sum] [--rows 2000] [--seed 1]

chain_sum: sums and differences of two numbers of one digit (chain_sum_2: of two); products: two factors of one digit.
"""

import argparse
import json
import os

import reasoning_gym

TASKS = {
    "chain_sum": dict(min_terms=2, max_terms=2, min_digits=1, max_digits=1),
    "chain_sum_2": dict(min_terms=2, max_terms=2, min_digits=2, max_digits=2),
    "products": dict(min_terms=2, max_terms=2, min_digits=1, max_digits=1),
}

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("out")
ap.add_argument("--task", default="chain_sum", choices=TASKS)
ap.add_argument("--rows", type=int, default=2000)
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("--chat", action="store_true", help="prompts as messages, through the model's chat template; else plain text to go on from")
a = ap.parse_args()
os.makedirs(os.path.dirname(a.out) or ".", exist_ok=True)
with open(a.out, "w", encoding="utf-8") as f:
    for row in reasoning_gym.create_dataset(a.task.removesuffix("_2"), size=a.rows, seed=a.seed, **TASKS[a.task]):
        prompt = [{"role": "user", "content": row["question"]}] if a.chat else row["question"]
        f.write(json.dumps({"prompt": prompt, "answer": row["answer"]}, ensure_ascii=False) + "\n")
