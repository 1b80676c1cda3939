"""The operations of one event-loop tick, to Redis and back in one call of the script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from kernel.clock import Clock, micros
from serving.admission.link import NotSent, RedisDown, RedisRefused
from serving.admission.script import SCRIPT, SHA

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
CLAIM_SECONDS = 2.0  # how long a grant to a waiter waits for its process
CALL_AT_MOST = 64  # operations in one call: nobody else is served meanwhile
QUIET_SECONDS = 0.005  # how long what nobody waits for may wait for company

Answer = list[Any]
Operation = list[Any]
_Entry = tuple[Operation, "asyncio.Future[Answer] | None", Any]
_NOTHING: Answer = [0]  # as if it had been refused
_pack = msgspec.msgpack.Encoder().encode


class Redis(Protocol):
    """A link; ``generation`` changes with its connection, ``run_id`` names its server."""

    @property
    def generation(self) -> int: ...
    @property
    def run_id(self) -> str: ...
    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBounds:
    """What may wait for one pool, over all processes; a tenant may fill a share of it."""

    waiters: int = 1_000
    bytes: int = 64_000_000
    tenant_share: float = 0.25


class Listener(Protocol):
    """Who is told what came along with the answers."""

    def epoch_is(self, epoch: str) -> None:
        """We are not announced in Redis' epoch."""

    def granted(self, pool: str, grant_id: str, charged: int) -> None:
        """A waiter of ours has a slot."""

    def lost(self, operation: Operation, *, was_sent: bool) -> None:
        """This was not carried out, or nobody knows whether it was."""

    def orphaned(self, owner: Any, answer: Answer | None) -> None:
        """Whoever asked has left; the answer is not known where it is None."""

    def failed(self) -> None:
        """Redis does not answer any more."""

    def recovered(self) -> None:
        """Redis answers again."""


class Batch:
    """All of the mutable state: what goes with this tick, who waits, and the epoch."""

    def __init__(
        self, redis: Redis, *, prefix: str, writer: str, bounds: QueueBounds, clock: Clock
    ) -> None:
        self.seen = ""  # the newest epoch we heard of
        self.offset = 0  # Redis' clock minus ours, in microseconds
        self.listener: Listener | None = None
        self._redis = redis
        self._prefix = prefix
        self._writer = writer
        self._bounds = [
            bounds.waiters, bounds.bytes,
            int(bounds.waiters * bounds.tenant_share), int(bounds.bytes * bounds.tenant_share),
        ]  # fmt: skip
        self._clock = clock
        self._announced = ("", -1)  # the epoch, and the connection on which we announced
        self._header: tuple[object, msgspec.Raw] | None = None
        self._entries: list[_Entry] = []
        self._timer: asyncio.Handle | None = None  # when the batch goes, at the latest
        self._is_urgent = False
        self._sent = 0  # batches under way
        self._is_down = False

    @property
    def is_down(self) -> bool:
        """Whether the last call came to nothing."""
        return self._is_down

    @property
    def is_idle(self) -> bool:
        return not self._entries and not self._sent

    @property
    def announced(self) -> str:
        """The epoch in which this very connection has announced us; '' where none."""
        epoch, generation = self._announced
        return epoch if generation == self._redis.generation else ""

    @property
    def generation(self) -> int:
        return self._redis.generation

    def announced_in(self, epoch: str, generation: int) -> None:
        self._announced = (epoch, generation)

    def now(self) -> int:
        """Redis' time, as far as we know: microseconds since the epoch."""
        return micros(self._clock()) + self.offset

    def ask(self, operation: Operation, owner: Any = None) -> asyncio.Future[Answer]:
        """Somebody waits: the batch goes at the end of this tick.

        With an ``owner`` the answer is not lost when the future is cancelled: see ``orphaned``.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._entries.append((operation, future, owner))
        if not self._is_urgent:
            self._is_urgent = True
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_soon(self._send)
        return future

    def tell(self, operation: Operation) -> None:
        """Nobody waits: it goes along with the next that is urgent, or soon."""
        self._entries.append((operation, None, None))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._send)

    def ask_in_one(self, chunks: Sequence[Operation]) -> asyncio.Future[Answer]:
        """Each in a call of its own, one behind the other with nothing of ours in between.

        The answer of the last; it fails when the connection does.
        """
        if self._entries:
            self._send()
        for chunk in chunks[:-1]:
            self._transmit([(chunk, None, None)])
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._transmit([(chunks[-1], future, None)])
        return future

    def _send(self) -> None:
        entries, self._entries = self._entries, []
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._is_urgent = None, False
        if len(entries) <= CALL_AT_MOST:
            self._transmit(entries)
            return
        for start in range(0, len(entries), CALL_AT_MOST):
            self._transmit(entries[start : start + CALL_AT_MOST])

    def _transmit(self, entries: list[_Entry]) -> None:
        packed = _pack((self._packed_header(), [operation for operation, _, _ in entries]))
        self._call(entries, packed, "EVALSHA", SHA)

    def _call(self, entries: list[_Entry], packed: bytes, name: str, script: str | bytes) -> None:
        try:
            answer = self._redis.call(name, script, 1, self._prefix, packed)
        except RedisDown as error:
            self._fail(entries, error)
            return
        self._sent += 1
        sent_as = self.announced
        answer.add_done_callback(lambda done: self._receive(done, entries, packed, sent_as))

    def _receive(
        self, answer: asyncio.Future[Any], entries: list[_Entry], packed: bytes, sent_as: str
    ) -> None:
        self._sent -= 1
        if answer.cancelled():
            self._fail(entries, RedisDown("cancelled"))
            return
        error = answer.exception()
        if error is None:
            self._deliver(answer.result(), entries, sent_as)
        elif isinstance(error, RedisRefused) and str(error).startswith("NOSCRIPT"):
            # Redis has forgotten the script, or never knew it: send it whole, once.
            self._call(entries, packed, "EVAL", SCRIPT)
        else:
            if isinstance(error, RedisRefused):
                log.warning("admission script refused: %.200s", error)
            self._fail(entries, error if isinstance(error, RedisDown) else RedisDown(str(error)))

    def _deliver(self, answer: Answer, entries: list[_Entry], sent_as: str) -> None:
        now, epoch, own_grants, *results = answer
        self.offset = now - micros(self._clock())
        for (_, future, owner), result in zip(entries, results, strict=True):
            if future is None:
                continue
            if not future.done():
                future.set_result(result)
            elif owner is not None and self.listener is not None:
                self.listener.orphaned(owner, result)
        if epoch:
            self.seen = epoch.decode()
            if sent_as and sent_as == self.announced:
                self._announced = ("", -1)
        if self.listener is not None:
            self._tell(self.listener, own_grants, is_new=bool(epoch))

    def _tell(self, listener: Listener, own_grants: Answer, *, is_new: bool) -> None:
        for pool, grant_id, charged in own_grants:
            listener.granted(pool.decode(), grant_id.decode(), charged)
        if is_new:
            listener.epoch_is(self.seen)
        if self._is_down:
            self._is_down = False
            listener.recovered()

    def _fail(self, entries: list[_Entry], error: RedisDown) -> None:
        was_down, self._is_down = self._is_down, True
        was_sent = not isinstance(error, NotSent)
        listener = self.listener
        for operation, future, owner in entries:
            if future is not None and not future.done():
                future.set_exception(error)
            elif listener is not None and owner is not None:
                listener.orphaned(owner, None if was_sent else _NOTHING)
            elif listener is not None and future is None:
                listener.lost(operation, was_sent=was_sent)
        if listener is not None and not was_down:
            listener.failed()

    def _packed_header(self) -> msgspec.Raw:
        announced, run_id = self.announced, self._redis.run_id[:12]
        key = (announced, self.seen, run_id)
        if self._header is None or self._header[0] != key:
            fields = [
                self._writer, announced, self.seen, run_id,
                int(LEASE_SECONDS * 1000), int(CLAIM_SECONDS * 1000), self._bounds,
            ]  # fmt: skip
            self._header = (key, msgspec.Raw(_pack(fields)))
        return self._header[1]
