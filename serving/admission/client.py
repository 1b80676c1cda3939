"""``admit``, ``shrink`` and ``settle``: what a gateway process asks of admission.

Redis away is a declared policy, not an accident: a call is then admitted on this process's own
share of slots and limits, and counted; what has to be paid from a balance waits for Redis instead.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from kernel.clock import Clock, monotonic, wall
from serving.admission.batch import (
    LEASE_SECONDS,
    Answer,
    Batch,
    Operation,
    QueueBounds,
    Redis,
)
from serving.admission.epochs import NEEDS, Epochs
from serving.admission.held import TIERS, Call, Holdings, allowance_from
from serving.admission.inbox import Inbox, PushLink
from serving.admission.keys import admission_prefix, push_stream
from serving.admission.ledger import Ledger
from serving.admission.link import NotSent, RedisDown
from serving.admission.local import LocalShare
from serving.admission.prepared import Prepared, PreparedSubjects
from serving.admission.values import (
    NO_LIMITS,
    AdmissionRequest,
    Allowance,
    Grant,
    Queued,
    Reason,
    Refusal,
    Used,
)
from serving.admission.waiting import UNKNOWN, WaitingRoom, leave

log = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
BEAT_SECONDS = 1.0
CLOSE_SECONDS = 5.0  # how often writers that are silent are looked after
MONEY_SECONDS = 2.0  # how long a call waits for its accounts
_REFUSED, _GRANTED, _QUEUED = 0, 1, 2
_LOST_AT_MOST = 10_000
_UNAVAILABLE_SECONDS = 1.0
_ARRIVALS: Final = slice(10, None)
_json = msgspec.json.Encoder().encode


class Admission:
    """One per process. ``run`` does what has a rhythm; ``writer`` names the process' journal."""

    def __init__(  # noqa: PLR0913 - what admission is connected to
        self,
        redis: Redis,
        *,
        cell: str,
        processes: int,
        writer: str = "",
        ledger: Ledger | None = None,
        push: PushLink | None = None,
        bounds: QueueBounds | None = None,
        on_lapsed: Callable[[Sequence[Grant]], None] | None = None,
        clock: Clock = wall,
    ) -> None:
        self.soft_unchecked = 0  # calls let in without knowing a soft account
        prefix = admission_prefix(cell)
        self._writer = writer or secrets.token_hex(8)
        self._prepared = PreparedSubjects()
        self._holdings = Holdings()
        self._slots: dict[str, int] = {}  # of each pool, as last said
        self._lost: list[Operation] = []
        self._share = LocalShare(processes)
        self._on_lapsed = on_lapsed
        self._batch = Batch(
            redis, prefix=prefix, writer=self._writer, bounds=bounds or QueueBounds(), clock=clock
        )
        self._batch.listener = self
        self._epochs = Epochs(
            self._batch, redis, self._holdings, prefix=prefix, writer=self._writer
        )
        self._epochs.ledger = ledger
        self._epoch = ""  # the last one that we restored our leases in
        self._room = WaitingRoom(
            self._batch, self._holdings, on_seated=self._begin, on_lost=self._stopped_waiting
        )
        self._inbox = push and Inbox(
            push, stream=push_stream(prefix, self._writer), on_grant=self._room.pushed
        )
        self._beat_at = self._renewed_at = self._closed_at = monotonic()
        self._reported: set[str] = set()

    @property
    def held(self) -> int:
        """Calls under way."""
        return len(self._holdings.calls)

    @property
    def waiting(self) -> int:
        """Calls of this process that wait for a slot."""
        return len(self._holdings.waiting)

    @property
    def local_admissions(self) -> int:
        return self._share.admitted

    @property
    def local_refusals(self) -> int:
        return self._share.refused

    @property
    def epoch(self) -> str:
        """Redis' life as we know it; '' before the first answer."""
        return self._batch.seen

    @property
    def is_money_ready(self) -> bool:
        """Whether the whole roster is accounted for in this epoch, ourselves included."""
        return self._epochs.is_complete

    async def admit(self, request: AdmissionRequest) -> Grant | Refusal | Queued:
        """All or nothing. Whoever gets a grant settles it exactly once, whatever happens."""
        prepared = self._prepared.of(request.subjects)
        self._slots[request.pool] = request.slots
        try:
            answer = await self._ask(request, prepared, is_final=0)
            if answer[0] >= NEEDS:
                answer = await self._ask_with_money(request, prepared, answer)
        except RedisDown as error:
            if not isinstance(error, NotSent):
                self._forget(request, prepared)
            return self._alone(request, prepared)
        return self._answered(request, prepared, answer)

    def shrink(self, grant: Grant, input_tokens: int) -> None:
        """The prompt is counted: give back what the upper bound held too much."""
        call = self._holdings.calls.get(grant.grant_id)
        if call is None or not call.prepared.is_settled_by_tokens:
            return
        before = call.tokens
        call.bound(input_tokens)
        if not call.is_local:
            self._batch.tell(
                ["shrink", call.grant_id, call.prepared.packed, before, call.tokens, call.nano]
            )

    def settle(self, grant: Grant, used: Used) -> None:
        """Book what was used and give back the rest. Does not wait."""
        call = self._holdings.calls.pop(grant.grant_id, None)
        if call is None:
            return
        self._share.ended(call.pool, call.prepared)
        cost = used.cost_nano
        accounts = used.accounts or call.prepared.accounts
        totals = self._holdings.spend(accounts, cost) if cost else []
        self._batch.tell(
            [
                "settle", call.grant_id, call.pool, call.prepared.packed,
                UNKNOWN if call.is_local else call.tokens,
                used.input_tokens + used.output_tokens, call.place, call.charged,
                call.service(used), used.output_tokens, totals,
            ]
        )  # fmt: skip

    def offer(self, pool: str, slots: int) -> None:
        """The pool's replicas offer so many slots from now on; who waits for them is told."""
        if self._slots.get(pool) != slots:
            self._slots[pool] = slots
            if self._holdings.waiting:
                self._batch.tell(["pump", [pool, slots]])

    async def renew(self) -> None:
        """Push the end of every lease ahead; ``run`` does it every ``RENEW_SECONDS``."""
        pools, subjects = self._holdings.leases()
        if not pools and not subjects:
            return
        try:
            await self._batch.ask(["renew", pools, subjects])
        except RedisDown:
            log.debug("leases not renewed: redis is away")

    async def credit(self, account: str, *, previous: int, entry: int, nano: int) -> bool:
        """Credit number ``entry`` of the account, which followed number ``previous``.

        Whether Redis was told; telling it again is harmless.
        """
        try:
            await self._batch.ask(["credit", account, previous, entry, nano])
        except RedisDown:
            return False
        return True

    async def run(self) -> None:
        """Beat, renew, report, listen; until cancelled."""
        inbox = self._inbox and asyncio.get_running_loop().create_task(self._inbox.run())
        try:
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                self.beat(monotonic())
        finally:
            self._epochs.cancel()
            if inbox:
                inbox.cancel()

    def beat(self, now: float) -> None:
        """What is due at ``now``, in seconds of a monotonic clock; once a second."""
        was_stopped = now - self._beat_at > LEASE_SECONDS
        self._beat_at = now
        if was_stopped and self._on_lapsed is not None:
            calls = self._holdings.calls.values()
            self._on_lapsed([call.grant for call in calls if call.grant is not None])
        pools = {call.pool for call in self._holdings.waiting.values()}
        flat = [value for pool in pools for value in (pool, self._slots[pool])]
        self._batch.tell(["pump", flat] if flat else ["beat"])
        self._report()
        if now - self._renewed_at >= RENEW_SECONDS:
            self._renewed_at = now
            self._renew_quietly()
        if now - self._closed_at >= CLOSE_SECONDS:
            self._closed_at = now
            self._epochs.look_after_silent()

    async def flush(self) -> None:
        """Wait until everything enqueued so far is answered or given up."""
        while not self._batch.is_idle:  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.005)

    # What comes along with answers: see ``batch.Listener``.

    def epoch_is(self, epoch: str) -> None:
        if epoch != self._epoch:
            was_known, self._epoch = self._epoch != "", epoch
            if self._inbox:
                self._inbox.rewind()
            if was_known:
                self._restore()
        self._epochs.begin()

    def granted(self, pool: str, grant_id: str, charged: int) -> None:
        self._room.granted(pool, grant_id, charged)

    def lost(self, operation: Operation, *, was_sent: bool) -> None:
        if operation[0] in {"settle", "leave"} and len(self._lost) < _LOST_AT_MOST:
            tokens = UNKNOWN if was_sent else operation[4]
            self._lost.append([*operation[:4], tokens, *operation[5:]])

    def orphaned(self, owner: Any, answer: Answer | None) -> None:
        request, prepared = owner
        if answer is None:
            self._forget(request, prepared)
        elif answer[0] in {_GRANTED, _QUEUED}:
            call = Call(request, prepared, answer[1])
            self._batch.tell(leave(request, prepared, call.tokens))

    def failed(self) -> None:
        self._room.failed()

    def recovered(self) -> None:
        self._room.recovered()
        self._restore()

    def _restore(self) -> None:
        """Redis may have forgotten anything: tell what we know, all of it repeatable."""
        lost, self._lost = self._lost, []
        for operation in lost:
            self._batch.tell(operation)
        rates = self._share.returned(self._prepared.all(), self._batch.now())
        if rates:
            self._batch.tell(["rates", rates])
        self._renew_quietly()
        self._room.wait_again()

    def _renew_quietly(self) -> None:
        pools, subjects = self._holdings.leases()
        if pools or subjects:
            self._batch.tell(["renew", pools, subjects])

    def _report(self) -> None:
        found = self._holdings.pools()
        for pool in self._reported - found.keys():
            found[pool] = (0, 0, 0, 0)
        self._reported = set(found)
        if found:
            self._batch.tell(
                ["report", [[pool, _json(one).decode()] for pool, one in found.items()]]
            )

    async def _ask(self, request: AdmissionRequest, prepared: Prepared, *, is_final: int) -> Answer:
        demand = request.demand
        future = self._batch.ask(
            [
                "admit", request.grant_id, request.pool, request.slots, prepared.packed,
                (
                    demand.input_tokens, demand.output_tokens, demand.choices,
                    demand.input_nano, demand.output_nano,
                ),
                (
                    request.tenant, TIERS[request.tier], request.weight,
                    int(request.wait_seconds * 1000), request.body_bytes,
                ),
                is_final,
            ],
            (request, prepared),
        )  # fmt: skip
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.orphaned((request, prepared), future.result())
            raise

    async def _ask_with_money(
        self, request: AdmissionRequest, prepared: Prepared, answer: Answer
    ) -> Answer:
        """Wait for the accounts, a bounded time; then what is known decides."""
        loop = asyncio.get_running_loop()
        until = loop.time() + MONEY_SECONDS
        is_ready = True
        while answer[0] >= NEEDS and is_ready:
            is_ready = await self._epochs.ready(answer, until) and loop.time() < until
            answer = await self._ask(request, prepared, is_final=int(not is_ready))
        return answer

    def _answered(
        self, request: AdmissionRequest, prepared: Prepared, answer: Answer
    ) -> Grant | Refusal | Queued:
        code = answer[0]
        if code >= NEEDS:
            return _balance_unavailable(prepared)
        if code == _REFUSED:
            _, reason, retry_ms, index, *_ = answer
            return Refusal(
                reason=Reason(reason.decode()),
                retry_after_seconds=retry_ms / 1000,
                subject=prepared.ids[index - 1] if index else "",
                allowance=allowance_from(answer) if prepared.limits else NO_LIMITS,
            )
        call = Call(request, prepared, answer[1])
        if answer[3]:
            self.soft_unchecked += 1
            self._epochs.load_soon(prepared.accounts)
        if prepared.limits:
            prepared.arrivals = answer[_ARRIVALS]
        if code == _QUEUED:
            return self._room.enter(call, position=answer[2])
        call.charged = answer[2]
        return self._begin(call, allowance_from(answer) if prepared.limits else NO_LIMITS)

    def _begin(self, call: Call, allowance: Allowance = NO_LIMITS) -> Grant:
        self._holdings.calls[call.grant_id] = call
        self._share.began(call.pool, call.prepared)
        return call.granted(at=self._batch.now(), allowance=allowance)

    def _forget(self, request: AdmissionRequest, prepared: Prepared) -> None:
        """Nobody knows what Redis has done of it: it hears that it need not."""
        if len(self._lost) < _LOST_AT_MOST:
            self._lost.append(leave(request, prepared, UNKNOWN))

    def _stopped_waiting(self, request: AdmissionRequest, prepared: Prepared) -> Grant | Refusal:
        self._forget(request, prepared)
        return self._alone(request, prepared)

    def _alone(self, request: AdmissionRequest, prepared: Prepared) -> Grant | Refusal:
        """Redis is away."""
        call = Call(request, prepared, request.demand.output_tokens)
        refusal = (
            _balance_unavailable(prepared)
            if prepared.hard_subject
            else self._share.take(request, prepared, tokens=call.tokens, now=self._batch.now())
        )
        if refusal is not None:
            return refusal
        self.soft_unchecked += bool(prepared.accounts)
        call.is_local = True
        return self._begin(call)


def _balance_unavailable(prepared: Prepared) -> Refusal:
    return Refusal(
        reason=Reason.BALANCE_UNAVAILABLE,
        retry_after_seconds=_UNAVAILABLE_SECONDS,
        subject=prepared.hard_subject,
    )
