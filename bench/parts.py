"""Every benchmark of ``make bench``, in the order of its table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from . import fairness, gateway, memory, overrun, rate, routing, spike, streams, strict, trace
from .kills import run as kills
from .results import Row


class Measure(Protocol):
    def __call__(self, *, short: bool) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """``missing`` says in one line why it cannot run on this machine; empty where it can."""

    name: str
    measure: Measure
    missing: Callable[[], str] = lambda: ""


PARTS = (
    Part("gateway", gateway.measure),
    Part("rate", rate.measure),
    Part("streams", streams.measure),
    Part("trace", trace.measure, trace.missing),
    Part("routing", routing.measure),
    Part("fairness", fairness.measure),
    Part("spike", spike.measure, trace.missing),
    Part("memory", memory.measure),
    Part("overrun", overrun.measure),
    Part("strict", strict.measure),
    Part("kills", kills.measure),
)
