"""When an adapter counts as different from its base."""

from __future__ import annotations

import math

import pytest

from serving.agent.engine import Logprobs
from serving.agent.proof import PROMPTS, SMALLEST_EFFECT, Signature, effect, take_signature

BASE = {"a": -0.1, "b": -2.5, "c": -4.0}


def moved_by(answer: Logprobs) -> float:
    return effect(Signature((BASE,)), Signature((answer,)))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (BASE, 0.0),
        ({"a": -0.1, "b": -2.4, "c": -4.0}, 0.1),
        ({"c": -4.0, "b": -2.5, "a": -3.1}, 3.0),
        # Tokens at the end of the list changed places: nothing is known to have moved.
        ({"a": -0.1, "b": -2.5, "d": -4.0}, 0.0),
        # A token that was not even listed is now the likeliest.
        ({"z": -0.1, "a": -2.5, "b": -4.0}, 3.9),
        ({}, 0.0),
    ],
)
def test_the_effect_is_the_largest_move_of_a_likely_token(
    answer: Logprobs, expected: float
) -> None:
    assert moved_by(answer) == pytest.approx(expected)


def test_one_prompt_that_moves_is_enough() -> None:
    other = {**BASE, "b": -3.5}
    assert effect(Signature((BASE, BASE)), Signature((BASE, other))) == pytest.approx(1.0)


def test_one_step_of_bfloat16_arithmetic_is_no_effect() -> None:
    """Log-probabilities near 20 come in steps of 1/16; noise moves them by one."""
    assert moved_by({"a": -0.1, "b": -2.5625, "c": -4.0}) < SMALLEST_EFFECT


def test_values_that_are_no_numbers_are_noticed() -> None:
    assert not Signature((BASE, {"a": math.nan})).is_finite
    assert Signature((BASE,)).is_finite


async def test_a_signature_asks_every_prompt_of_the_model() -> None:
    asked: list[tuple[str, str]] = []

    class Probe:
        async def next_token(self, model: str, prompt: str) -> Logprobs:
            asked.append((model, prompt))
            return BASE

    signature = await take_signature(Probe(), "adapter-1")
    assert asked == [("adapter-1", prompt) for prompt in PROMPTS]
    assert signature.answers == (BASE,) * len(PROMPTS)
