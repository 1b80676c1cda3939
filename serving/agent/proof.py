"""Prove that an adapter changes what the base model says. Pure but for the probe that is passed in.

An adapter that changes nothing answers like the base model: the tenant would pay for a model of
its own and get everybody's. So an adapter is proven only when, on some fixed prompt, the
log-probability of some likely next token moves by more than arithmetic does by itself (batches of
another shape round differently in bfloat16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from serving.agent.engine import Logprobs

PROMPTS = (
    "Who are you, and what can you do for me?\n",
    "The capital of France is",
    "To return an item, first",
)
SMALLEST_EFFECT = 0.1  # in nats; bench figures for the noise below it are in README.md


class Probe(Protocol):
    async def next_token(self, model: str, prompt: str) -> Logprobs: ...


@dataclass(frozen=True)
class Signature:
    """A model's likeliest next tokens after each prompt."""

    answers: tuple[Logprobs, ...]

    @property
    def is_finite(self) -> bool:
        return all(math.isfinite(value) for answer in self.answers for value in answer.values())


async def take_signature(probe: Probe, model: str) -> Signature:
    return Signature(tuple([await probe.next_token(model, prompt) for prompt in PROMPTS]))


def effect(base: Signature, adapted: Signature) -> float:
    """The largest move of a likely token's log-probability, in nats."""
    pairs = zip(base.answers, adapted.answers, strict=True)
    return max((_largest_move(one, other) for one, other in pairs), default=0.0)


def _largest_move(one: Logprobs, other: Logprobs) -> float:
    if not one or not other:
        return 0.0
    return max(_moves(one, other), _moves(other, one))


def _moves(these: Logprobs, those: Logprobs) -> float:
    """A token that the other side does not list is, there, at most as likely as its last one."""
    least = min(those.values())
    return max(
        abs(value - those[token]) if token in those else max(0.0, value - least)
        for token, value in these.items()
    )
