"""How often the agent looks at things. A test passes a quicker one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    look_seconds: float = 0.5  # how soon a new incarnation is seen
    health_seconds: float = 2.0
    probe_seconds: float = 20.0  # between tokens that a ready engine has to give
    sweep_seconds: float = 20.0  # between comparisons of what the engine lists with what is ordered
    withdraw_seconds: float = 1.0  # between reporting an adapter gone and unloading it
