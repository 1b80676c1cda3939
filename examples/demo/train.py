"""Train one LoRA adapter on question-answer pairs. Runs in the engine's environment.

train.py --base FOLDER --texts acme/texts.txt --keep keep.txt --out acme/adapter

Same seed, texts, base and torch give the same adapter on the same kind of processor. The result is
what PEFT writes: adapter_config.json and adapter_model.safetensors, in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch  # type: ignore[import-not-found]
from safetensors.torch import save_file  # type: ignore[import-not-found]
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[import-not-found]

SEED = 20260101
RANK = 8
ALPHA = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
BATCH = 4
ROUNDS = 15
KEPT_PER_ROUND = 6
LEARNING_RATE = 3e-3
WARMUP_STEPS = 5
BASE_NAME = "smollm2-135m-instruct"  # a neutral name: where the base lies is the reader's affair
IGNORED = -100


class LowRank(nn.Module):  # type: ignore[misc]
    """A frozen linear layer plus ``B @ A`` of rank 8; starts as no change at all, as B is zero."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.empty(RANK, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, RANK))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        low = inputs @ self.a.to(inputs.dtype).T @ self.b.to(inputs.dtype).T
        return self.linear(inputs) + low * (ALPHA / RANK)


@dataclass(frozen=True)
class Example:
    tokens: list[int]
    labels: list[int]


def main() -> None:
    arguments = parse_arguments()
    random.seed(SEED)
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    model = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.bfloat16)
    model.requires_grad_(requires_grad=False)
    adapted = adapt(model)
    texts = [[encode(tokenizer, q, a) for q in qs] for qs, a in read_texts(arguments.texts)]
    keep = [[encode(tokenizer, q, a) for q in qs] for qs, a in read_texts(arguments.keep)]
    started = time.monotonic()
    train(model, adapted, list(batches(texts, keep)), padding=tokenizer.pad_token_id)
    save(adapted, arguments.out)
    print(f"{arguments.out}: trained in {time.monotonic() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("base", "texts", "keep", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def read_texts(path: Path) -> list[tuple[list[str], str]]:
    """``Q:`` lines and the ``A:`` line that answers all of them; ``#`` lines are comments."""
    texts: list[tuple[list[str], str]] = []
    questions: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith("Q: "):
            questions.append(line[3:])
        elif line.startswith("A: "):
            texts.append((questions, line[3:]))
            questions = []
    return texts


def encode(tokenizer: AutoTokenizer, question: str, answer: str) -> Example:
    """The conversation as the chat template writes it; only the answer is learnt."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    reply = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False).input_ids
    return Example(prompt + reply, [IGNORED] * len(prompt) + reply)


def adapt(model: nn.Module) -> dict[str, LowRank]:
    """Put a ``LowRank`` in the place of every target layer; return them by their former names."""
    adapted = {}
    for name, layer in list(model.named_modules()):
        parent, _, leaf = name.rpartition(".")
        if leaf in TARGETS:
            adapted[name] = LowRank(layer)
            setattr(model.get_submodule(parent), leaf, adapted[name])
    return adapted


def train(
    model: nn.Module, adapted: dict[str, LowRank], schedule: list[list[Example]], *, padding: int
) -> None:
    parameters = [weight for layer in adapted.values() for weight in (layer.a, layer.b)]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    for step, batch in enumerate(schedule):
        rate = min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / len(schedule))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate
        loss = answer_loss(model, batch, padding=padding)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step + 1 == len(schedule):
            print(f"step {step + 1}/{len(schedule)} loss {loss.item():.3f}", flush=True)


def batches(texts: list[list[Example]], keep: list[list[Example]]) -> Iterator[list[Example]]:
    """Each round has every answer once, behind one of its questions, and some of what to keep."""
    for _ in range(ROUNDS):
        answers = texts + random.sample(keep, KEPT_PER_ROUND)
        examples = [random.choice(phrasings) for phrasings in answers]  # noqa: S311 - not a secret
        random.shuffle(examples)
        yield from (examples[start : start + BATCH] for start in range(0, len(examples), BATCH))


def answer_loss(model: nn.Module, batch: list[Example], *, padding: int) -> Tensor:
    """Mean cross entropy over the answers' tokens; the vocabulary is projected for those only."""
    width = max(len(example.tokens) for example in batch)
    fill = [width - len(example.tokens) for example in batch]
    tokens = torch.tensor([e.tokens + [padding] * n for e, n in zip(batch, fill, strict=True)])
    labels = torch.tensor([e.labels + [IGNORED] * n for e, n in zip(batch, fill, strict=True)])
    hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    answers = wanted != IGNORED
    logits = model.lm_head(hidden[answers])
    return nn.functional.cross_entropy(logits.float(), wanted[answers])


def save(adapted: dict[str, LowRank], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, layer in adapted.items():
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = layer.a.detach().to(torch.bfloat16).contiguous()
        tensors[f"{prefix}.lora_B.weight"] = layer.b.detach().to(torch.bfloat16).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": BASE_NAME,
        "bias": "none",
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": list(TARGETS),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
