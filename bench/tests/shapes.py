"""Answers of a real vLLM, taken down once, and what of an answer must be the same elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPTURED = Path(__file__).parent / "vllm_0_32.json"


@dataclass(frozen=True)
class Captured:
    """A request and the answer that vLLM gave; ``base`` stands for the base model's name."""

    name: str
    path: str
    request: dict[str, Any] | None
    status: int
    body: str

    @property
    def method(self) -> str:
        return "GET" if self.request is None else "POST"

    def request_to(self, model: str) -> dict[str, Any] | None:
        """The request as another engine knows its base model."""
        text = json.dumps(self.request).replace('"base"', json.dumps(model))
        request: dict[str, Any] | None = json.loads(text)
        return request


def captured() -> list[Captured]:
    return [Captured(**answer) for answer in json.loads(CAPTURED.read_text())["answers"]]


def shape(value: Any) -> Any:
    """Names in their order, and types; what depends on the weights or on wording is left out."""
    match value:
        case dict():
            return [(key, _shape_of(key, item)) for key, item in value.items()]
        case list():
            return [shape(item) for item in value]
        case float() | int() if not isinstance(value, bool):
            return "number"
        case str():
            return "text"
    return value


def event_shapes(body: str) -> list[Any]:
    """The kinds of events of a stream, each once, in the order they first come."""
    kinds: list[Any] = []
    for event in body.strip().split("\n\n"):
        text = event.removeprefix("data: ")
        kind = text if text == "[DONE]" else shape(json.loads(text))
        if kind not in kinds:
            kinds.append(kind)
    return kinds


def _shape_of(key: str, value: Any) -> Any:
    if key == "top_logprobs" and value and "logprob" not in value[0]:
        return "tokens"  # named by themselves
    if key in {"bytes", "text_offset"}:
        return "numbers"
    if key in {"finish_reason", "object", "type", "code", "role"}:
        return value
    return shape(value)
