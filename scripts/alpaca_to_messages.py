#!/usr/bin/env python3
"""Alpaca rows (instruction, input, output) as messages, one JSON object a line.

    alpaca_to_messages.py ROWS.json OUT.jsonl

The user's turn is the instruction and, where the row has an input, a newline and the input.
"""

import json
import sys


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: alpaca_to_messages.py ROWS.json OUT.jsonl")
    with open(sys.argv[1], encoding="utf-8") as f:
        rows = json.load(f)
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        for row in rows:
            user = row["instruction"] + ("\n" + row["input"] if row.get("input") else "")
            messages = [{"role": "user", "content": user}, {"role": "assistant", "content": row["output"]}]
            f.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
