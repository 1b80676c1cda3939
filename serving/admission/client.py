"""``admit`` and ``settle``: the calls of one event-loop tick travel to Redis together.

Redis away is a declared policy, not an accident: a call is then admitted while this process holds
fewer slots of the pool than its own share of them, and counted. What was admitted so is entered in
Redis by the next renewal after its return.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import msgspec

from kernel.clock import Clock, micros, wall
from serving.admission.keys import admission_prefix
from serving.admission.link import RedisDown, RedisRefused
from serving.admission.values import AdmissionRequest, Grant, Queued, Reason, Refusal, Used

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
QUIET_SECONDS = 0.005  # how long what nobody waits for may wait for company
_SCRIPT = Path(__file__).with_name("admission.lua").read_bytes()
_SCRIPT_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()
_LEASE_MS = int(LEASE_SECONDS * 1000)

Operation = list[Any]
Waiting = list[asyncio.Future[list[Any]] | None]
_pack = msgspec.msgpack.Encoder().encode


class Redis(Protocol):
    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]: ...


class Admission:
    """All of the mutable state: the grants we hold, and the operations of this tick."""

    def __init__(self, redis: Redis, *, cell: str, processes: int, clock: Clock = wall) -> None:
        self.local_admissions = 0
        self.local_refusals = 0
        self._redis = redis
        self._prefix = admission_prefix(cell)
        self._processes = processes
        self._clock = clock
        self._offset = 0  # Redis' clock minus ours, in microseconds
        self._held: dict[str, Grant] = {}
        self._held_per_pool: Counter[str] = Counter()
        self._batch: list[tuple[Operation, asyncio.Future[list[Any]] | None]] = []
        self._timer: asyncio.Handle | None = None  # when the batch goes, at the latest
        self._is_urgent = False
        self._sent = 0  # batches under way

    @property
    def held(self) -> int:
        return len(self._held)

    async def admit(self, request: AdmissionRequest) -> Grant | Refusal | Queued:
        """All or nothing. Whoever gets a grant settles it exactly once, whatever happens."""
        operation = ["admit", request.grant_id, request.pool, request.slots, _LEASE_MS]
        answer = self._enqueue(operation)
        try:
            taken, *why = await answer
        except RedisDown:
            return self._admit_locally(request)
        except asyncio.CancelledError:
            self._enqueue_quietly(["settle", request.grant_id, request.pool])
            raise
        if not taken:
            reason, retry_ms = why
            return Refusal(reason=Reason(reason.decode()), retry_after_seconds=retry_ms / 1000)
        return self._hold(request, is_local=False)

    def shrink(self, grant: Grant, input_tokens: int) -> None:
        """The prompt is counted: give back what the upper bound held too much."""

    def settle(self, grant: Grant, used: Used) -> None:
        """Give the slot back. Does not wait: the lease covers what is lost on the way."""
        if self._held.pop(grant.grant_id, None) is None:
            return
        self._held_per_pool[grant.pool] -= 1
        self._enqueue_quietly(["settle", grant.grant_id, grant.pool])

    async def renew(self) -> None:
        """Push the end of every lease we hold ahead; call it every ``RENEW_SECONDS``."""
        if not self._held:
            return
        pools: dict[str, list[str]] = {}
        for grant in self._held.values():
            pools.setdefault(grant.pool, [grant.pool]).append(grant.grant_id)
        try:
            await self._enqueue(["renew", _LEASE_MS, list(pools.values())])
        except RedisDown:
            log.debug("leases not renewed: redis is away")

    async def flush(self) -> None:
        """Wait until everything enqueued so far is answered or given up."""
        while self._batch or self._sent:  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.005)

    def _hold(self, request: AdmissionRequest, *, is_local: bool) -> Grant:
        grant = Grant(
            grant_id=request.grant_id,
            pool=request.pool,
            at=micros(self._clock()) + self._offset,
            output_tokens=request.demand.output_tokens,
            is_local=is_local,
        )
        self._held[grant.grant_id] = grant
        self._held_per_pool[grant.pool] += 1
        return grant

    def _admit_locally(self, request: AdmissionRequest) -> Grant | Refusal:
        share = max(1, request.slots // self._processes) if request.slots else 0
        if self._held_per_pool[request.pool] >= share:
            self.local_refusals += 1
            return Refusal(reason=Reason.POOL_FULL, retry_after_seconds=1.0)
        self.local_admissions += 1
        return self._hold(request, is_local=True)

    def _enqueue(self, operation: Operation) -> asyncio.Future[list[Any]]:
        """Somebody waits: the batch goes at the end of this tick."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        self._batch.append((operation, future))
        if not self._is_urgent:
            self._is_urgent = True
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_soon(self._send)
        return future

    def _enqueue_quietly(self, operation: Operation) -> None:
        """Nobody waits: it goes along with the next that is urgent, or soon."""
        self._batch.append((operation, None))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._send)

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        self._timer, self._is_urgent = None, False
        packed = _pack([operation for operation, _ in batch])
        waiting = [future for _, future in batch]
        try:
            answer = self._redis.call("EVALSHA", _SCRIPT_SHA, 1, self._prefix, packed)
        except RedisDown as error:
            _fail(waiting, error)
            return
        self._sent += 1
        answer.add_done_callback(lambda done: self._receive(done, packed, waiting))

    def _receive(self, answer: asyncio.Future[Any], packed: bytes, waiting: Waiting) -> None:
        self._sent -= 1
        error = None if answer.cancelled() else answer.exception()
        if error is None and not answer.cancelled():
            self._deliver(answer.result(), waiting)
        elif isinstance(error, RedisRefused) and str(error).startswith("NOSCRIPT"):
            self._teach(packed, waiting)
        else:
            if isinstance(error, RedisRefused):
                log.warning("admission script refused: %.80s", error)
            _fail(waiting, RedisDown(str(error)))

    def _teach(self, packed: bytes, waiting: Waiting) -> None:
        """Redis has forgotten the script, or never knew it: send it whole, once."""
        try:
            answer = self._redis.call("EVAL", _SCRIPT, 1, self._prefix, packed)
        except RedisDown as error:
            _fail(waiting, error)
            return
        self._sent += 1
        answer.add_done_callback(lambda done: self._receive(done, packed, waiting))

    def _deliver(self, answer: list[Any], waiting: Waiting) -> None:
        now, *results = answer
        self._offset = now - micros(self._clock())
        for future, result in zip(waiting, results, strict=True):
            if future is not None and not future.done():
                future.set_result(result)


def _fail(waiting: Waiting, error: RedisDown) -> None:
    for future in waiting:
        if future is not None and not future.done():
            future.set_exception(error)
