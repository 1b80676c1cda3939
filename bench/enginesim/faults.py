"""Faults on demand, for tests: what an engine can do wrong, ordered through ``POST /sim/faults``.

A fault waits until a request comes that it fits (any request, or one for ``model``), happens
``times`` times and is gone; ``times`` 0 means until it is cleared.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "crash",  # the process dies, as if killed
    "stall",  # no more tokens, the connection stays open
    "cut",  # the connection is closed
    "garbage",  # a chunk, or a plain body, that is not JSON
    "endless_line",  # one line of a stream that never ends
    "huge_header",  # a header of ``size`` bytes
    "negative_usage",  # usage that counts below zero
    "stream_error",  # an error event in the stream, as vLLM sends when a step fails
    "status",  # an error answer with ``status``
    "slow",  # ``token_ms`` between tokens
    "sick",  # /health says 503
    "wedged",  # /health says 200, nothing else happens
]


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    kind: Kind
    at_tokens: int = 0  # happens when so many tokens are out
    times: int = 1
    model: str = ""
    status: int = 503
    retry_after: int | None = None
    size: int = 1_000_000
    token_ms: float = 1000.0
    stamps: bool = False  # of ``slow``: every token is the instant it left, monotonic nanoseconds


class Faults:
    """Those ordered and not yet used up, oldest first."""

    def __init__(self) -> None:
        self.ordered: list[Fault] = []

    def order(self, fault: Fault) -> None:
        self.ordered.append(fault)

    def clear(self) -> None:
        self.ordered.clear()

    def take(self, model: str) -> Fault | None:
        """The one that this request meets."""
        for fault in self.ordered:
            if fault.kind != "sick" and fault.model in ("", model):
                self._use(fault)
                return fault
        return None

    @property
    def is_sick(self) -> bool:
        return any(fault.kind == "sick" for fault in self.ordered)

    def _use(self, fault: Fault) -> None:
        if fault.times == 0:
            return
        fault.times -= 1
        if fault.times == 0:
            self.ordered.remove(fault)
