"""Follow the engine: which start of it is the present one, and whether it still moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kernel.clock import monotonic
from serving.agent.engine import Engine, Pulse
from serving.agent.errors import AgentProblem
from serving.agent.launch import current_incarnation, socket_path
from serving.agent.pace import Pace
from serving.agent.proof import PROMPTS, Signature
from serving.agent.residency import Resident

STRIKES = 3

_WORDS: dict[Pulse, str] = {
    "alive": "",
    "sick": "The engine's health route does not answer 200.",
    "absent": "Nobody listens at the engine's address.",
}

EngineState = Literal["starting", "ready", "failing", "gone"]
Connect = Callable[[str], Engine]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Incarnation:
    """What is known of one start of the engine; dropped whole when the next one is announced."""

    id: str
    address: str
    engine: Engine
    state: EngineState = "starting"
    reason: str = ""
    strikes: int = 0
    base_signature: Signature | None = None
    residents: dict[str, Resident] = field(default_factory=dict)


class EngineWatch:
    """Keeps ``present`` true and calls ``changed`` whenever it or its state is another.

    An engine is ready once it is healthy and has given a token. It is failing when it listens but
    ``STRIKES`` checks in a row went wrong, and gone when nobody listens at its address any more.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        base: Callable[[], str | None],
        connect: Connect,
        changed: Callable[[], None],
        pace: Pace,
    ) -> None:
        self.present: Incarnation | None = None
        self._run_dir = run_dir
        self._base = base
        self._connect = connect
        self._changed = changed
        self._pace = pace
        self._probe_at = 0.0

    async def aclose(self) -> None:
        if self.present is not None:
            await self.present.engine.aclose()

    async def follow_starts(self) -> None:
        while True:
            announced = current_incarnation(self._run_dir)
            if announced and (self.present is None or self.present.id != announced):
                await self._begin(announced)
            await asyncio.sleep(self._pace.look_seconds)

    async def follow_health(self) -> None:
        while True:
            if self.present is not None:
                await self._check(self.present)
            await asyncio.sleep(self._pace.health_seconds)

    async def _begin(self, incarnation: str) -> None:
        log.info("The engine started as %s.", incarnation)
        before = self.present
        address = f"unix:{socket_path(self._run_dir, incarnation)}"
        self.present = Incarnation(incarnation, address, self._connect(address))
        self._probe_at = 0.0
        self._changed()
        if before is not None:
            await before.engine.aclose()

    async def _check(self, present: Incarnation) -> None:
        pulse = await present.engine.pulse()
        reason = _WORDS[pulse]
        if pulse == "alive" and (present.state != "ready" or monotonic() >= self._probe_at):
            base = self._base()
            if base is None:
                return  # without orders it is not known what to ask it
            try:
                await present.engine.next_token(base, PROMPTS[0])
                self._probe_at = monotonic() + self._pace.probe_seconds
            except AgentProblem as problem:
                pulse, reason = "sick", str(problem)
        self._judge(present, pulse, reason)

    def _judge(self, present: Incarnation, pulse: Pulse, reason: str) -> None:
        present.strikes = 0 if pulse == "alive" else present.strikes + 1
        state = next_state(present.state, pulse, present.strikes)
        if state == present.state:
            return
        log.info("Engine %s is %s. %s", present.id, state, reason)
        present.state = state
        present.reason = "" if state == "ready" else reason
        if present is self.present:
            self._changed()


def next_state(state: EngineState, pulse: Pulse, strikes: int) -> EngineState:
    """What an engine is after a check; a starting one may take as long as it needs."""
    if pulse == "alive":
        return "ready"
    if state == "starting":
        return "starting"
    if pulse == "absent":
        return "gone"
    return "failing" if strikes >= STRIKES else state
