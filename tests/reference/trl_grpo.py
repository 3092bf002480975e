#!/usr/bin/env python3
"""GRPO by TRL + PEFT for given completions and rewards: advantages, loss, gradient norm, and what is measured.

    trl_grpo.py MODEL_DIR ADAPTER_DIR OUT.json

`GRPOTrainer._generate` and its reward functions are replaced by fixed completions and rewards; all that comes after is TRL's
own. The policy that "drew" the completions is the trained one with other log-probabilities, so that some ratios are clipped,
or (no `old`) the same. f32 on the CPU, no dropout. Needs torch, transformers, peft, trl, datasets.
"""

import itertools
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

GROUP, LENGTH, TEMPERATURE = 4, 12, 0.8


def made(vocab, eos):
    """Two prompts, a group of completions each: some end, some are cut off."""
    g = torch.Generator().manual_seed(5)
    draw = lambda n: torch.randint(3, vocab, (n,), generator=g).tolist()
    prompts = [p for n in (7, 4) for p in [draw(n)] * GROUP]
    lengths = [5, 12, 3, 8, 1, 12, 6, 9]
    completions = [draw(n if n == LENGTH else n - 1) + ([] if n == LENGTH else [eos]) for n in lengths]
    rewards = [1.0, 0.0, 0.25, 1.0, 0.0, 0.5, 0.0, 2.0]
    return prompts, completions, rewards


def run(case, model_dir, adapter, prompts, completions, rewards, tokenizer):
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    # The reference is TRL's frozen copy of the adapter; the policy has moved a little since.
    args = GRPOConfig(
        output_dir="/tmp/trl_grpo", report_to="none", bf16=False, use_cpu=True, gradient_checkpointing=False, seed=0,
        per_device_train_batch_size=2 * GROUP, gradient_accumulation_steps=1, num_generations=GROUP, max_completion_length=LENGTH,
        temperature=TEMPERATURE, epsilon=0.2, epsilon_high=0.28, **{k: v for k, v in case.items() if k != "old"},
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}])
    trainer = GRPOTrainer(model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=args, train_dataset=data, processing_class=tokenizer)
    trainer._generate = lambda _: (prompts, completions, None, ["x"] * len(prompts), None, {}, None, None)
    trainer._calculate_rewards = lambda *_: torch.tensor(rewards)[:, None]
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            if ".default." in name:
                p.mul_(1.1)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._generate_and_score_completions([{"prompt": "a"}] * len(prompts))
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    if case["old"]:
        with torch.no_grad():
            now, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, inputs["completion_ids"].size(1))
        g = torch.Generator().manual_seed(7)
        inputs["old_per_token_logps"] = now + 0.3 * torch.randn(now.shape, generator=g)
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    measured = {k: v[-1] for k, v in trainer._metrics["train"].items()}
    names = ["reward", "reward_std", "frac_reward_zero_std", "entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"]
    old = inputs.get("old_per_token_logps")
    return case | dict(
        old=[row[: len(c)].tolist() for row, c in zip(old, completions)] if case["old"] else [],
        advantages=inputs["advantages"].tolist(),
        loss=float(loss),
        grad_norm=float(torch.sqrt(sum((g**2).sum() for g in grads))),
        metrics={n: measured[n] for n in names if n in measured},
    )


def main():
    model_dir, adapter, out = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    vocab = AutoModelForCausalLM.from_pretrained(model_dir).config.vocab_size
    prompts, completions, rewards = made(vocab, tokenizer.eos_token_id)
    cases = []
    for loss_type, level, old in itertools.product(["grpo", "bnpo", "dr_grpo", "dapo"], ["token", "sequence"], [False, True]):
        for beta in [0.0, 0.2]:
            cases.append(dict(loss_type=loss_type, importance_sampling_level=level, beta=beta, old=old))
    cases.append(dict(loss_type="dapo", importance_sampling_level="token", beta=0.2, old=True, use_bias_correction_kl=False))
    cases.append(dict(loss_type="grpo", importance_sampling_level="token", beta=0.0, old=True, mask_truncated_completions=True))
    cases.append(dict(loss_type="dapo", importance_sampling_level="token", beta=0.0, old=False, scale_rewards="batch"))
    cases.append(dict(loss_type="dapo", importance_sampling_level="token", beta=0.0, old=False, scale_rewards="none"))
    done = [run(c, model_dir, adapter, prompts, completions, rewards, tokenizer) for c in cases]
    made_with = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, trl {trl.__version__}"
    given = dict(group=GROUP, max_completion_length=LENGTH, temperature=TEMPERATURE, adapter_times=1.1, epsilon=0.2, epsilon_high=0.28)
    with open(out, "w") as f:
        json.dump(dict(made_with=made_with, **given, prompts=prompts, completions=completions, rewards=rewards, cases=done), f)
        f.write("\n")


if __name__ == "__main__":
    main()
