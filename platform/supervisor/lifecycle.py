"""What becomes of a part: its states, and the decision what to do next. No process is touched here.

waiting -> starting -> running -> backoff -> starting ...
              |            |
              +-> stopping +-> stopped        (told to, or a ``once`` part that succeeded)
a ``once`` part that did not succeed is failed
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from supervisor.parts import Part

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 30.0  # who was ready this long starts again with the first delay
START_PROBE_SECONDS = 0.1
PROBE_SECONDS = 10.0
PROBE_TIMEOUT_SECONDS = 3.0
KILL_AGAIN_SECONDS = 5.0


class State(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def has_process(self) -> bool:
        return self in {State.STARTING, State.RUNNING, State.STOPPING}


class Step(StrEnum):
    START = "start"
    PROBE = "probe"
    READY = "ready"
    SIGNAL = "signal"
    KILL = "kill"
    END = "end"


@dataclass
class Life:
    """All that is known about one part now."""

    part: Part
    ensured: bool = False  # came through the control socket rather than with the stack
    leaving: bool = False  # is to be stopped although the stack goes on
    successor: Part | None = None  # takes its place once it has stopped
    state: State = State.WAITING
    pid: int = 0
    started: float = 0.0
    started_at: float | None = None
    ready_since: float | None = None
    retry_at: float = 0.0
    probe_at: float = 0.0
    signalled: float | None = None
    kill_at: float = 0.0
    failures: int = 0  # in a row
    restarts: int = 0
    last_exit: str | None = None
    healthy: bool | None = None

    @property
    def is_satisfied(self) -> bool:
        """Whether those who need it may start."""
        if self.part.once:
            return self.state is State.STOPPED and self.last_exit == "exit 0"
        return self.state is State.RUNNING

    def begin(self, *, pid: int, now: float, at: float) -> None:
        if self.started_at is not None:
            self.restarts += 1
        self.state, self.pid, self.started, self.started_at = State.STARTING, pid, now, at
        self.probe_at, self.signalled, self.healthy = now, None, None
        self.ready_since = None

    def probed(self, *, healthy: bool, now: float) -> None:
        self.healthy = healthy
        self.probe_at = now + (PROBE_SECONDS if healthy else START_PROBE_SECONDS)
        if self.state is State.RUNNING:
            self.probe_at = now + PROBE_SECONDS

    def ready(self, now: float) -> None:
        self.state, self.ready_since = State.RUNNING, now

    def signal_sent(self, now: float) -> None:
        self.state, self.signalled = State.STOPPING, now
        self.kill_at = now + self.part.stop_seconds

    def probe_sent(self, now: float) -> None:
        self.probe_at = now + PROBE_TIMEOUT_SECONDS + START_PROBE_SECONDS

    def exited(self, status: int, now: float) -> None:
        """Its leader is gone, and with it the group."""
        told_to = self.state is State.STOPPING
        self.last_exit, self.pid, self.healthy = exit_in_words(status), 0, None
        if told_to:
            self.state = State.STOPPED
        elif self.part.once:
            self.state = State.STOPPED if status == 0 else State.FAILED
        else:
            ready_at = now if self.ready_since is None else self.ready_since
            steady = now - ready_at >= STEADY_SECONDS
            self.failures = 1 if steady else self.failures + 1
            self.state, self.retry_at = State.BACKOFF, now + delay_seconds(self.failures)

    def described(self) -> dict[str, Any]:
        """For whoever asks over the control socket."""
        return {
            "name": self.part.name,
            "state": self.state.value,
            "healthy": self.healthy,
            "once": self.part.once,
            "ensured": self.ensured,
            "pid": self.pid or None,
            "started_at": self.started_at,
            "restarts": self.restarts,
            "failures": self.failures,
            "last_exit": self.last_exit,
            "advice": self.part.advice,
            "spec_hash": self.part.spec_hash,
        }


def delay_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 16))


def exit_in_words(status: int) -> str:
    """From a wait status: ``exit 1``, ``killed by SIGKILL``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def decide(lives: Mapping[str, Life], *, now: float, stopping: bool) -> list[tuple[Step, Life]]:
    """The steps that are due, at most one for each part."""
    steps = []
    for life in lives.values():
        leaving = stopping or life.leaving
        step = _step_out(life, lives, now) if leaving else _step_on(life, lives, now)
        if step is not None:
            steps.append((step, life))
    return steps


def sleep_seconds(lives: Mapping[str, Life], *, now: float) -> float:
    """How long nothing can become due that does not announce itself."""
    return min((_next_look(life, now) for life in lives.values()), default=PROBE_SECONDS)


def _step_on(life: Life, lives: Mapping[str, Life], now: float) -> Step | None:
    part = life.part
    if life.state is State.WAITING and _needs_are_met(part, lives):
        return Step.START
    if life.state is State.BACKOFF and now >= life.retry_at:
        return Step.START
    if life.state is State.STARTING:
        return _step_while_starting(life, now)
    if life.state is State.RUNNING and part.health and now >= life.probe_at:
        return Step.PROBE
    return None


def _step_while_starting(life: Life, now: float) -> Step | None:
    if life.part.health is None:
        return Step.READY if now >= life.started + life.part.ready_seconds else None
    if life.healthy:
        return Step.READY
    return Step.PROBE if now >= life.probe_at else None


def _step_out(life: Life, lives: Mapping[str, Life], now: float) -> Step | None:
    if life.state is State.STOPPING:
        return Step.KILL if now >= life.kill_at else None
    if life.state.has_process:
        return None if _is_used(life, lives) and not life.leaving else Step.SIGNAL
    waits = life.state in {State.WAITING, State.BACKOFF}
    return Step.END if waits or life.leaving else None


def _needs_are_met(part: Part, lives: Mapping[str, Life]) -> bool:
    return all(lives[name].is_satisfied for name in part.needs)


def _is_used(life: Life, lives: Mapping[str, Life]) -> bool:
    """Whether a part still runs that would miss this one: then it stops later.

    What was ensured at run time is an engine or beside one: whoever takes connections uses it.
    """
    return any(
        other.state.has_process
        and (_rests_on(other.part, life.part.name, lives) or _takes_connections(other, life))
        for other in lives.values()
    )


def _rests_on(part: Part, name: str, lives: Mapping[str, Life]) -> bool:
    """Directly, or through what it needs: a step that ran once needed the same servers."""
    return any(need == name or _rests_on(lives[need].part, name, lives) for need in part.needs)


def _takes_connections(other: Life, life: Life) -> bool:
    return life.ensured and other.part.listen_index is not None


def _next_look(life: Life, now: float) -> float:
    if life.state is State.BACKOFF:
        return max(0.01, life.retry_at - now)
    if life.state is State.STARTING and life.part.health is None:
        return max(0.01, life.started + life.part.ready_seconds - now)
    if life.state is State.STARTING:
        return START_PROBE_SECONDS
    if life.state is State.STOPPING:
        return max(0.01, life.kill_at - now)
    if life.state is State.RUNNING and life.part.health:
        return max(0.01, life.probe_at - now)
    return PROBE_SECONDS
