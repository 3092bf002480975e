#!/usr/bin/env python3
"""Preference pairs from the tiny Llama's rows: chosen is a row's own answer, rejected the next row's.

    tiny_pairs.py ROWS.jsonl PAIRS.jsonl
"""

import json
import sys

rows = [json.loads(line)["messages"] for line in open(sys.argv[1], encoding="utf-8")]
with open(sys.argv[2], "w", encoding="utf-8") as f:
    for own, other in zip(rows, rows[1:] + rows[:1]):
        pair = {"prompt": own[:-1], "chosen": own[-1:], "rejected": other[-1:]}
        f.write(json.dumps(pair, ensure_ascii=False) + "\n")
