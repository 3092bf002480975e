#!/usr/bin/env python3
"""DPO by TRL + PEFT: losses, gradient norms, rewards and log-probabilities that `finetop train` is compared with.

    trl_dpo.py MODEL_DIR OUT.json --start NAME=ADAPTER_DIR … [--pairs PAIRS.jsonl] …

f32 on the CPU, pairs in file order, batch 2 × accumulation 2, linear schedule with warm-up. For each starting adapter eight
steps of loss_type sigmoid, then two of every other. An adapter whose B is zero is a fresh one: TRL's frozen copy of it says
what the base says. A pair is {"prompt": […], "chosen": […], "rejected": […]}, lists of messages, or three texts.
Needs torch, transformers, peft, trl, datasets.
"""

import argparse
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

LOSSES = ["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sigmoid_norm"]
NAMES = ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"]


class Recorder(DPOTrainer):
    """Sequential, and keeps what Trainer's log rounds to four digits."""

    steps = None

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        tokens = int(inputs["attention_mask"].sum())
        labels = int(inputs["completion_mask"][:, 1:].sum())
        self.micro = [*getattr(self, "micro", []), (float(loss), labels, tokens)]
        return loss

    def log(self, logs, *args, **kwargs):
        kept = dict(logs)
        super().log(logs, *args, **kwargs)
        if "grad_norm" in kept:
            loss, labels, tokens = (sum(column) for column in zip(*self.micro))
            assert abs(loss - float(kept["loss"])) < 1e-3, (loss, kept)
            step = dict(loss=loss, grad_norm=float(kept["grad_norm"]), learning_rate=kept["learning_rate"])
            step |= dict(label_tokens=labels, tokens=tokens, metrics={n: logs[n] for n in NAMES})
            self.steps.append(step)
            self.micro = []


def trl_row(row):
    """LLaMA-Factory's ShareGPT form as TRL has it."""
    if "conversations" not in row:
        return row
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    said = lambda turn: {"role": roles[turn["from"]], "content": turn["value"]}
    return dict(prompt=[said(t) for t in row["conversations"]], chosen=[said(row["chosen"])], rejected=[said(row["rejected"])])


def run(a, adapter, loss_type, steps, data):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    args = DPOConfig(
        output_dir="/tmp/trl_dpo", report_to="none", logging_steps=1, save_strategy="no", disable_tqdm=True, seed=0,
        bf16=False, use_cpu=True, gradient_checkpointing=False, per_device_train_batch_size=a.batch,
        gradient_accumulation_steps=a.accumulation, max_steps=steps, learning_rate=a.lr, lr_scheduler_type="linear",
        warmup_steps=a.warmup, weight_decay=a.weight_decay, max_grad_norm=a.max_grad_norm, optim="adamw_torch",
        max_length=a.max_length, loss_type=[loss_type], beta=a.beta, label_smoothing=a.label_smoothing,
    )  # fmt: skip
    trainer = Recorder(model=model, args=args, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(a.model))
    trainer.steps = []
    trainer.train()
    return trainer.steps


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["model", "out"]:
        ap.add_argument(name)
    ap.add_argument("--start", action="append", required=True)
    ap.add_argument("--pairs", required=True)
    ap.add_argument("--steps", type=int, default=8)
    ap.add_argument("--others", type=int, default=2, help="steps of the other losses")
    ap.add_argument("--warmup", type=int, default=1)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--weight-decay", type=float, default=0.01)
    ap.add_argument("--max-grad-norm", type=float, default=1.0)
    ap.add_argument("--max-length", type=int, default=64)
    ap.add_argument("--batch", type=int, default=2)
    ap.add_argument("--accumulation", type=int, default=2)
    ap.add_argument("--beta", type=float, default=0.3)
    ap.add_argument("--label-smoothing", type=float, default=0.1)
    a = ap.parse_args()

    with open(a.pairs, encoding="utf-8") as f:
        rows = json.load(f) if a.pairs.endswith(".json") else [json.loads(line) for line in f]
    data = Dataset.from_list([trl_row(row) for row in rows])
    runs = []
    for start in a.start:
        name, adapter = start.split("=", 1)
        for loss_type in LOSSES if a.others else LOSSES[:1]:
            steps = a.steps if loss_type == "sigmoid" else a.others
            runs.append(dict(start=name, loss_type=loss_type, steps=run(a, adapter, loss_type, steps, data)))
    made_with = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, trl {trl.__version__}"
    recipe = dict(
        per_device_train_batch_size=a.batch, gradient_accumulation_steps=a.accumulation, learning_rate=a.lr,
        warmup_steps=a.warmup, weight_decay=a.weight_decay, max_grad_norm=a.max_grad_norm,
        max_seq_length=a.max_length, beta=a.beta, label_smoothing=a.label_smoothing,
    )  # fmt: skip
    with open(a.out, "w") as f:
        json.dump(dict(made_with=made_with, recipe=recipe, runs=runs), f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
