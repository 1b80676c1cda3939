"""Calls of this process that wait for a slot.

A grant that another process's call has made is claimed before it is used; one that our own call has
made is claimed on the way. Redis away for longer than a moment: who waits is let in on our own
share, or told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from serving.admission.batch import CLAIM_SECONDS, Answer, Batch, Operation
from serving.admission.held import Call, Holdings
from serving.admission.prepared import Prepared
from serving.admission.values import AdmissionRequest, Grant, Queued, Reason, Refusal

GRACE_SECONDS = 1.0  # how long waiters wait for Redis itself
UNKNOWN = -1  # tokens that may have been given back before are not given back again
_FULL_SECONDS = 2.0


class Waiter:
    """A call without a slot. ``arrival`` and ``deadline`` in microseconds of Redis' clock."""

    __slots__ = ("arrival", "call", "deadline", "granted", "timer")

    def __init__(
        self,
        call: Call,
        *,
        arrival: int,
        granted: asyncio.Future[Grant | Refusal],
        timer: asyncio.TimerHandle,
    ) -> None:
        self.call = call
        self.arrival = arrival
        self.deadline = arrival + int(call.request.wait_seconds * 1e6)
        self.granted = granted
        self.timer = timer

    def operation(self) -> list[Any]:
        """Wait again where it stood, in case Redis has lost it."""
        request = self.call.request
        place = [*self.call.place, max(1, self.deadline // 1000), request.body_bytes]
        demand = request.demand
        return [
            "wait", self.call.pool, self.call.grant_id, place, self.deadline // 1000, self.arrival,
            demand.input_tokens, demand.choices * self.call.output_tokens,
        ]  # fmt: skip


class WaitingRoom:
    """All of the mutable state: the waiters, and grants that came before they were known."""

    def __init__(
        self,
        batch: Batch,
        holdings: Holdings,
        *,
        on_seated: Callable[[Call], Grant],
        on_lost: Callable[[AdmissionRequest, Prepared], Grant | Refusal],
    ) -> None:
        self._batch = batch
        self._holdings = holdings
        self._on_seated = on_seated
        self._on_lost = on_lost
        self._waiters: dict[str, Waiter] = {}
        self._early: dict[str, int] = {}
        self._grace: asyncio.TimerHandle | None = None

    def enter(self, call: Call, *, position: int) -> Queued:
        loop = asyncio.get_running_loop()
        grant_id = call.grant_id
        granted: asyncio.Future[Grant | Refusal] = loop.create_future()
        timer = loop.call_later(call.request.wait_seconds, self._time_over, grant_id)
        waiter = Waiter(call, arrival=self._batch.now(), granted=granted, timer=timer)
        self._waiters[grant_id] = waiter
        self._holdings.waiting[grant_id] = call
        granted.add_done_callback(lambda done: done.cancelled() and self._leave(grant_id))
        if grant_id in self._early:
            self.pushed(call.pool, grant_id, self._early.pop(grant_id))
        return Queued(grant_id=grant_id, position=position, granted=granted)

    def granted(self, pool: str, grant_id: str, charged: int) -> None:
        """Within our own call: nobody else may have it."""
        if grant_id in self._waiters:
            self._batch.tell(["claim", pool, grant_id])
            self._seat(grant_id, charged)
        else:
            self._remember(grant_id, charged)

    def pushed(self, pool: str, grant_id: str, charged: int) -> None:
        """By another process's call: claimed before it is used."""
        if grant_id in self._waiters:
            claim = self._batch.ask(["claim", pool, grant_id])
            claim.add_done_callback(lambda done: self._claimed(grant_id, charged, done))
        else:
            self._remember(grant_id, charged)

    def wait_again(self) -> None:
        """Redis may have lost everybody who waits."""
        for waiter in self._waiters.values():
            self._batch.tell(waiter.operation())

    def failed(self) -> None:
        if self._waiters and self._grace is None:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(GRACE_SECONDS, self._stop_waiting)

    def recovered(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _claimed(self, grant_id: str, charged: int, claim: asyncio.Future[Answer]) -> None:
        has_lapsed = not claim.cancelled() and claim.exception() is None and claim.result()[0] == 0
        waiter = self._waiters.get(grant_id)
        if waiter is not None and has_lapsed:
            self._batch.tell(waiter.operation())
        elif waiter is not None:
            self._seat(grant_id, charged)

    def _remember(self, grant_id: str, charged: int) -> None:
        """The answer to its question may still be on the way, by another connection."""
        if grant_id not in self._holdings.calls:
            self._early[grant_id] = charged
            loop = asyncio.get_running_loop()
            loop.call_later(CLAIM_SECONDS, self._early.pop, grant_id, None)

    def _seat(self, grant_id: str, charged: int) -> None:
        waiter = self._remove(grant_id)
        if waiter is not None and not waiter.granted.done():
            waiter.call.charged = charged
            waiter.granted.set_result(self._on_seated(waiter.call))

    def _time_over(self, grant_id: str) -> None:
        waiter = self._leave(grant_id)
        if waiter is not None and not waiter.granted.done():
            waiter.granted.set_result(
                Refusal(reason=Reason.QUEUE_TIMEOUT, retry_after_seconds=_FULL_SECONDS)
            )

    def _leave(self, grant_id: str) -> Waiter | None:
        waiter = self._remove(grant_id)
        if waiter is not None:
            call = waiter.call
            self._batch.tell(leave(call.request, call.prepared, call.tokens))
        return waiter

    def _remove(self, grant_id: str) -> Waiter | None:
        waiter = self._waiters.pop(grant_id, None)
        self._holdings.waiting.pop(grant_id, None)
        if waiter is not None:
            waiter.timer.cancel()
        return waiter

    def _stop_waiting(self) -> None:
        self._grace = None
        for grant_id in tuple(self._waiters):
            waiter = self._remove(grant_id)
            if waiter is not None and not waiter.granted.done():
                call = waiter.call
                waiter.granted.set_result(self._on_lost(call.request, call.prepared))


def leave(request: AdmissionRequest, prepared: Prepared, tokens: int) -> Operation:
    """It never started: everything goes back."""
    return ["leave", request.grant_id, request.pool, prepared.packed, tokens]
