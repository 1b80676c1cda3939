"""When a replica gets no more requests, and when it is asked again. Pure: time is an argument.

A replica is *open*, or *ejected* until a probe of ours succeeds (``probing.py``). Customers'
requests are never the probe. What a customer's request could bring about never ejects a pool's last
open replica, so that nobody takes a model away from others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

FIRST_PROBE_SECONDS = 0.5
LAST_PROBE_SECONDS = 8.0  # the wait doubles with each failed probe, up to this
FORGIVEN_SECONDS = 60.0  # open for so long, and the next ejection is a first one again
_WINDOW = 0xFFFF  # the last 16 outcomes
_IN_A_ROW = 0b111
_MANY = 8  # of the window


class Failure(StrEnum):
    """What went wrong, worst first."""

    UNREACHABLE = "unreachable"  # nobody takes a connection
    SILENT = "silent"  # an answer's time was over, and nobody else had any meanwhile
    STALLED = "stalled"  # no answer of the replica gets on, while others' do
    CUT = "cut"  # the connection ended before the answer
    LATE = "late"  # an answer's time was over, while others had theirs
    GARBAGE = "garbage"  # no answer of an engine
    ERROR = "error"  # a status of 500 or the like


_CERTAIN = frozenset({Failure.UNREACHABLE, Failure.SILENT, Failure.STALLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What one process knows of a replica's health."""

    failures: int = 0  # a bit for each of the last outcomes, the newest lowest; 1 is a failure
    reason: Failure | None = None  # why it is ejected, None while it is open
    probes: int = 0  # that failed since it was ejected
    probe_at: float = 0.0  # when it is probed next, while it is ejected
    opened_at: float = float("-inf")  # when an ejection ended last
    wait: float = FIRST_PROBE_SECONDS  # before the first probe of the next ejection

    @property
    def is_open(self) -> bool:
        return self.reason is None


GOOD: Final = Health()


def after_success(health: Health) -> Health:
    """An answer was had to its end."""
    return replace(health, failures=health.failures << 1 & _WINDOW)


def after_failure(
    health: Health, failure: Failure, *, now: float, others_open: int, others: int
) -> Health:
    """``others`` replicas could serve the same, ``others_open`` of them are open.

    No connection and nothing for anybody in time eject at once. A cut does, too, unless nobody else
    is open. Bad and late answers do when they are three in a row or half of the last sixteen, and
    half of the pool stays open.
    """
    if not health.is_open:
        return health
    health = replace(health, failures=(health.failures << 1 | 1) & _WINDOW)
    if failure in _CERTAIN:
        return _ejected(health, failure, now)
    if failure is Failure.CUT:
        return _ejected(health, failure, now) if others_open else health
    is_outlier = health.failures & _IN_A_ROW == _IN_A_ROW or health.failures.bit_count() >= _MANY
    if is_outlier and others_open and others_open * 2 >= others:
        return _ejected(health, failure, now)
    return health


def after_probe(health: Health, *, succeeded: bool, now: float) -> Health:
    """Open again after a good probe; after a bad one the next waits twice as long."""
    if succeeded:
        return Health(opened_at=now, wait=min(2 * health.wait, LAST_PROBE_SECONDS))
    probes = health.probes + 1
    wait = min(health.wait * 2**probes, LAST_PROBE_SECONDS)
    return replace(health, probes=probes, probe_at=now + wait)


def _ejected(health: Health, failure: Failure, now: float) -> Health:
    is_first = now - health.opened_at > FORGIVEN_SECONDS
    wait = FIRST_PROBE_SECONDS if is_first else health.wait
    return replace(health, reason=failure, probes=0, probe_at=now + wait, wait=wait)
