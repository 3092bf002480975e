"""Learning rates of transformers' schedules, step by step: what src/train/parts/schedule.rs is compared with.

usage: python tests/reference/schedules.py tests/fixtures/schedules.json
"""
import json
import sys

import torch
import transformers
from transformers import get_scheduler

WSD = "warmup_stable_decay"
CASES = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine", dict(num_cycles=1.5)),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", dict(num_cycles=3)),
    ("polynomial", dict(lr_end=0.0)),
    ("polynomial", dict(lr_end=1e-5, power=2.0)),
    (WSD, dict(num_decay_steps=6)),
    (WSD, dict(num_decay_steps=5, decay_type="linear", min_lr_ratio=0.1)),
    (WSD, dict(num_decay_steps=5, num_stable_steps=3, decay_type="1-sqrt", warmup_type="cosine")),
    (WSD, dict(num_decay_steps=8, warmup_type="1-sqrt", num_cycles=0.25, min_lr_ratio=0.05)),
    ("constant", {}),
    ("constant_with_warmup", {}),
]


def rates(name, kwargs, lr, warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    schedule = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=kwargs)
    out = []
    for _ in range(total + 2):
        out.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return out


def main():
    found = []
    for name, kwargs in CASES:
        for lr, warmup, total in [(2e-4, 0, 12), (1.0, 4, 17)]:
            found.append(dict(name=name, kwargs=kwargs, learning_rate=lr, warmup=warmup, total=total,
                              rates=rates(name, kwargs, lr, warmup, total)))
    lines = ",\n".join("  " + json.dumps(f) for f in found)
    with open(sys.argv[1], "w") as f:
        f.write(f'{{"made_with": "torch {torch.__version__}, transformers {transformers.__version__}", "schedules": [\n{lines}\n]}}\n')


main()
