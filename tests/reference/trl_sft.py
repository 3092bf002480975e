#!/usr/bin/env python3
"""Losses, gradient norms and learning rates of TRL + PEFT: what `finetop train` is compared with.

    trl_sft.py MODEL_DIR ADAPTER_DIR ROWS.jsonl OUT.json [--steps 8] [--lr 2e-4] …

f32 on the CPU, rows in file order, batch 2 × accumulation 2, linear schedule with warm-up, loss on the completion only.
A row is {"messages": [user, assistant]}; TRL gets it as prompt and completion. With --column NAME a row is a document in that
column, and all of it is learned: continued pre-training. Needs torch, transformers, peft, trl, datasets.
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
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer


class Recorder(SFTTrainer):
    """Sequential, and keeps what Trainer's log rounds to four digits."""

    steps = None

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        # With num_items_in_batch each micro-batch's loss is already its share of the step's: they add up.
        self.micro = [*getattr(self, "micro", []), (float(loss), int((inputs["labels"][:, 1:] != -100).sum()), int(inputs["attention_mask"].sum()))]
        return loss

    def log(self, logs, *args, **kwargs):
        if "grad_norm" in logs:
            loss, labels, tokens = (sum(column) for column in zip(*self.micro))
            assert abs(loss - float(logs["loss"])) < 1e-3, (loss, logs)
            self.steps.append(dict(loss=loss, grad_norm=float(logs["grad_norm"]), learning_rate=logs["learning_rate"], label_tokens=labels, tokens=tokens))
            self.micro = []
        super().log(logs, *args, **kwargs)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["model", "adapter", "rows", "out"]:
        ap.add_argument(name)
    ap.add_argument("--steps", type=int, default=8)
    ap.add_argument("--warmup", type=int, default=2)
    ap.add_argument("--lr", type=float, default=2e-4)
    ap.add_argument("--weight-decay", type=float, default=0.01)
    ap.add_argument("--max-grad-norm", type=float, default=1.0)
    ap.add_argument("--scheduler", default="linear")
    ap.add_argument("--max-length", type=int, default=256)
    ap.add_argument("--batch", type=int, default=2)
    ap.add_argument("--accumulation", type=int, default=2)
    ap.add_argument("--column", help="rows are documents in this column")
    ap.add_argument("--save", help="save the trained adapter here")
    ap.add_argument("--load-in-4bit", action="store_true", help="QLoRA: NF4 with double quantization by bitsandbytes, computed in f32")
    a = ap.parse_args()
    torch.manual_seed(0)

    with open(a.rows, encoding="utf-8") as f:
        rows = [json.loads(line)[a.column or "messages"] for line in f][: a.steps * a.batch * a.accumulation]
    data = Dataset.from_list([{a.column: r} if a.column else {"prompt": r[:-1], "completion": r[-1:]} for r in rows])
    four = None
    if a.load_in_4bit:
        four = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
        )  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, quantization_config=four)
    model = PeftModel.from_pretrained(base, a.adapter, is_trainable=True)
    args = SFTConfig(
        output_dir="/tmp/trl_sft", report_to="none", logging_steps=1, save_strategy="no", disable_tqdm=True, seed=0,
        bf16=False, use_cpu=True, gradient_checkpointing=False, packing=False, shuffle_dataset=False,
        per_device_train_batch_size=a.batch, gradient_accumulation_steps=a.accumulation, max_steps=a.steps,
        learning_rate=a.lr, lr_scheduler_type=a.scheduler, warmup_steps=a.warmup, weight_decay=a.weight_decay,
        max_grad_norm=a.max_grad_norm, optim="adamw_torch", completion_only_loss=not a.column, max_length=a.max_length,
        dataset_text_field=a.column or "text",
    )  # fmt: skip
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    trainer = Recorder(model=model, args=args, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(a.model))
    # Over 4 bits TRL rounds what trains to bf16; the comparison is in f32.
    for name, p in trainer.model.named_parameters():
        if name in start:
            p.data = start[name]
    trainer.steps = []
    trainer.train()
    if a.save:
        trainer.model.save_pretrained(a.save)
    made_with = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, trl {trl.__version__}"
    if a.load_in_4bit:
        import bitsandbytes

        made_with += f", bitsandbytes {bitsandbytes.__version__}"
    recipe = dict(
        rows=len(rows), per_device_train_batch_size=a.batch, gradient_accumulation_steps=a.accumulation,
        max_steps=a.steps, learning_rate=a.lr, lr_scheduler_type=a.scheduler, warmup_steps=a.warmup,
        weight_decay=a.weight_decay, max_grad_norm=a.max_grad_norm, max_seq_length=a.max_length,
    )  # fmt: skip
    with open(a.out, "w") as f:
        json.dump(dict(made_with=made_with, recipe=recipe, steps=trainer.steps), f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
