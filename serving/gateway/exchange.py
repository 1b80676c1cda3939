"""One inference call, top to bottom: who, what, may it, where, ask, stream, settle.

This is the order of a call and nothing else; every decision lies in the module named after it.
What was taken (a slot, a connection, a place in a count, an open account) is given back in the
``finally`` beside where it was taken, also when the client goes away, which cancels the call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from kernel.clock import Clock, monotonic, wall
from kernel.usage import Completeness
from serving.admission.values import Grant
from serving.gateway import asking, hold, settle
from serving.gateway.access import Line
from serving.gateway.answers import OpenStreams, PlainAnswer, StreamAnswer
from serving.gateway.attempts import Elsewhere, TooLong, engine_busy, nobody, says_much, unreachable
from serving.gateway.connection import EngineConnection, NotReached, UpstreamError
from serving.gateway.ejection import Failure
from serving.gateway.errors import (
    EngineFailed,
    GatewayError,
    NotAllowed,
    Unauthorized,
    error_event,
)
from serving.gateway.fields import Wanted
from serving.gateway.metrics import Metrics
from serving.gateway.ratelimit_headers import allowance_headers
from serving.gateway.replica import Load, Replica, Wish
from serving.gateway.reply import Reply
from serving.gateway.settle import Account, Journal, OpenAccounts
from serving.gateway.stream import EventFilter, Meter
from serving.gateway.upstream import Timeouts, Upstream
from serving.gateway.what import Directory, Target, not_ready
from serving.gateway.where import Fleet
from serving.gateway.who import Known, Who
from serving.journal.record import QuickFact

log = logging.getLogger(__name__)

SCOPE = "inference"
_DONE = b"data: [DONE]\n\n"


@dataclass(slots=True, kw_only=True)
class Call:
    """What is known of one call; all of its mutable state that outlives an attempt."""

    known: Known
    wanted: Wanted
    target: Target
    salt: str
    wish: Wish
    reply: Reply
    line: Line
    started_at: float
    account: Account
    grant: Grant
    limit: int | None = None
    load: Load | None = None  # on the replica that is asked
    tried: set[str] = field(default_factory=set)
    asked: int = 0  # of those, how many took the request and failed

    @property
    def meter(self) -> Meter:
        return self.account.meter

    @property
    def engine_name(self) -> str:
        """What the model is called on an engine."""
        return self.target.arm.adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The parts that a call meets, in the order it meets them."""

    who: Who
    directory: Callable[[], Directory]
    admission: hold.Admission
    journal: Journal
    fleet: Fleet
    upstream: Upstream
    accounts: OpenAccounts
    streams: OpenStreams
    metrics: Metrics
    salt_key: bytes
    timeouts: Timeouts
    queue_seconds: float = 30.0
    clock: Clock = monotonic
    wall_clock: Clock = wall

    async def identify(self, authorization: bytes | None, line: Line) -> Known:
        known = await self.who.identify(authorization, line.peer)
        principal = known.principal
        line.key_id, line.organization = principal.key_id, principal.organization
        line.project = principal.project
        if SCOPE not in principal.scopes:
            raise NotAllowed
        return known

    async def infer(self, known: Known, wanted: Wanted, reply: Reply, line: Line) -> None:
        """Answer the call. Raises ``DomainError`` while nothing has been sent."""
        directory = self.directory()
        started_at = self.clock()
        target = directory.target(known.principal, wanted.model)
        line.model, line.is_stream = wanted.model, wanted.is_stream
        event_id = line.request_id.removeprefix("req_")
        limit = asking.output_limit(wanted.limit, target)
        request = hold.admission_request(
            known.principal,
            wanted,
            target,
            grant_id=event_id,
            slots=directory.slots(target.pool.id),
            limit=limit,
            queue_seconds=self.queue_seconds,
            now=self.wall_clock(),
        )
        grant = await hold.take(self.admission, request, model=wanted.model, metrics=self.metrics)
        reply.extra += allowance_headers(grant.allowance)
        used = settle.UNUSED
        try:
            if self.who.is_revoked(known):  # while it waited
                raise Unauthorized
            meter = Meter(choices_per_prompt=wanted.choices, most=hold.most(request, grant))
            account = self._open_account(known, wanted, target, grant, meter)
            limit = hold.granted_limit(limit, request, grant)
            salt = asking.cache_salt(self.salt_key, known.principal, wanted.salt)
            call = Call(
                known=known,
                wanted=wanted,
                target=target,
                salt=salt,
                wish=asking.wish(wanted, target, salt, limit),
                reply=reply,
                line=line,
                started_at=started_at,
                account=account,
                grant=grant,
                limit=limit,
            )
            try:
                await self._accounted(call)
            finally:
                used = account.used
        finally:
            self.admission.settle(grant, used)

    def _open_account(
        self, known: Known, wanted: Wanted, target: Target, grant: Grant, meter: Meter
    ) -> Account:
        price = target.price
        draft = QuickFact(
            event_id=grant.grant_id,
            occurred_at=grant.at,
            organization=known.principal.organization,
            project=known.principal.project,
            key=known.principal.key_id,
            deployment=target.route.deployment,
            version=target.arm.version,
            quantities=settle.prompt_estimate(wanted.prompt_bytes),
            completeness=Completeness.UNKNOWN,
            model=target.route.name,
            rollout=target.route.rollout,
            arm=target.arm.arm,
            pool=target.pool.id,
            cluster=target.pool.cluster,
            tier=known.principal.tier,
            price_version=price.version,
            rates=settle.rates(price),
        )
        return Account(self.journal, draft, meter)

    async def _accounted(self, call: Call) -> None:
        account = call.account
        self.accounts.add(account)
        try:
            await self._find_answer(call)
        finally:
            self.accounts.discard(account)
            if not account.is_closed:  # every other way out has closed it: the client went
                self._close(call, _left(account))
            self._count(call)

    async def _find_answer(self, call: Call) -> None:
        """Ask one replica after the other, as long as nothing has been sent to the client."""
        failure: Elsewhere | None = None
        while (replica := self._choose(call)) is not None:
            call.tried.add(replica.endpoint.incarnation)
            try:
                await self._ask(call, replica)
            except Elsewhere as error:
                failure = error
                call.asked += error.was_asked
                self.metrics.count(
                    "tessera_gateway_upstream_failures_total", "kind", error.error.code
                )
            else:
                return
        if failure is None:
            is_held = bool(self.fleet.holding(call.target, self.clock()))
            failure = nobody(call.wanted.model, is_held=is_held)
        code = failure.error.code
        self._close(
            call,
            settle.failed(call.meter, code) if failure.was_asked else settle.refused(code),
        )
        raise failure.error

    def _choose(self, call: Call) -> Replica | None:
        return self.fleet.choose(
            call.target, call.wish, now=self.clock(), tried=call.tried, asked=call.asked
        )

    async def _ask(self, call: Call, replica: Replica) -> None:
        call.line.replica = replica.endpoint.replica
        call.load = load = replica.take(call.wish)
        try:
            try:
                await self._attempt(call, replica, call.limit)
            except TooLong:
                # The client's limit is an upper bound; the engine's own is what is left of the
                # context behind the prompt, which only the engine can count.
                await self._attempt(call, replica, None)
        finally:
            load.give_back()

    async def _attempt(self, call: Call, replica: Replica, limit: int | None) -> None:
        call.line.attempts += 1
        endpoint, wanted = replica.endpoint, call.wanted
        body = asking.engine_body(wanted, call.engine_name, call.salt, limit)
        request = self.upstream.request(
            endpoint, wanted.path, body, request_id=call.line.request_id
        )
        is_reused = True
        while is_reused:
            try:
                connection = await self.upstream.connection(endpoint)
            except NotReached as error:
                self.fleet.failed(replica, error.failure, self.clock())
                raise Elsewhere(unreachable(), was_asked=False) from error
            is_reused = connection.exchanges > 0
            call.account.ask(endpoint)
            answer = self._answer(call, connection)
            try:
                await self._exchange(call, connection, request, answer)
            except UpstreamError as error:
                if is_reused and connection.was_stale:
                    continue  # it was closed while it idled: nothing was asked
                self._failed(call, replica, error)
            except GatewayError as error:
                self._interrupted(call, error)
            else:
                self._answered(call, replica, answer, limit)
            return

    def _answer(self, call: Call, connection: EngineConnection) -> PlainAnswer | StreamAnswer:
        if not call.wanted.is_stream:
            return PlainAnswer()
        events = EventFilter(
            engine_name=call.target.arm.adapter,
            name=call.wanted.model,
            wants_usage=call.wanted.wants_usage,
            meter=call.meter,
        )
        call.reply.flow = connection
        return StreamAnswer(call.reply, events, on_start=lambda: self._first_byte(call))

    async def _exchange(
        self,
        call: Call,
        connection: EngineConnection,
        request: bytes,
        answer: PlainAnswer | StreamAnswer,
    ) -> None:
        stream = answer if isinstance(answer, StreamAnswer) else None
        if stream is not None:
            self.streams.add(call.known, stream)
        try:
            connection.send(
                request,
                answer,
                is_stream=stream is not None,
                first_seconds=self.timeouts.first_token if stream else self.timeouts.answer,
                idle_seconds=self.timeouts.idle,
            )
            await answer.finished
        finally:
            call.reply.flow = None
            self.upstream.release(connection)
            if stream is not None:
                self.streams.discard(call.known, stream)

    def _answered(
        self,
        call: Call,
        replica: Replica,
        answer: PlainAnswer | StreamAnswer,
        limit: int | None,
    ) -> None:
        """The engine's answer is here to its end."""
        if answer.status == 200:
            self._finish(call, replica, answer)
        elif answer.status == 404:
            replica.withdraw(call.target.arm.adapter, self.clock())
            raise Elsewhere(not_ready(call.wanted.model), was_asked=False)
        elif (
            answer.status == 400
            and limit is not None
            and asking.may_overflow(call.wanted, limit, call.target)
        ):
            raise TooLong
        elif answer.status in {400, 413, 422}:
            error = asking.engine_refusal(
                answer.content, engine_name=call.engine_name, name=call.wanted.model
            )
            self._close(call, settle.refused(error.code))
            raise error
        elif answer.status in {429, 503}:
            replica.rest(self.clock())
            raise Elsewhere(engine_busy(), was_asked=False)
        else:
            if says_much(Failure.ERROR, call.wanted):
                self.fleet.failed(replica, Failure.ERROR, self.clock())
            raise Elsewhere(EngineFailed(), was_asked=True)

    def _finish(self, call: Call, replica: Replica, answer: PlainAnswer | StreamAnswer) -> None:
        if isinstance(answer, StreamAnswer):
            replica.succeeded()
            self._close(call, settle.finished(call.meter, call.account.estimate))
            call.reply.finish(_DONE)
            return
        try:
            content = asking.whole_answer(
                answer.content, call.meter, engine_name=call.engine_name, name=call.wanted.model
            )
        except UpstreamError as error:
            self._failed(call, replica, error)
            return
        replica.succeeded()
        self._close(call, settle.finished(call.meter, call.account.estimate))
        self._first_byte(call)
        call.reply.send(200, content)

    def _failed(self, call: Call, replica: Replica, error: UpstreamError) -> None:
        log.warning("engine %s: %s: %s", replica.endpoint.replica, type(error).__name__, error)
        if says_much(error.failure, call.wanted):
            self.fleet.failed(replica, error.failure, self.clock())
        if not call.reply.has_started:
            raise Elsewhere(EngineFailed(), was_asked=True) from error
        self.metrics.count(
            "tessera_gateway_upstream_failures_total", "kind", "engine_failed_midway"
        )
        failure = EngineFailed(
            "The model's engine failed in the middle of the answer.", code="engine_failed_midway"
        )
        self._cut(call, failure)

    def _interrupted(self, call: Call, error: GatewayError) -> None:
        """We ended it: a revoked key, or a shutdown."""
        if not call.reply.has_started:
            self._close(call, settle.failed(call.meter, error.code))
            raise error
        self._cut(call, error)

    def _cut(self, call: Call, error: GatewayError) -> None:
        """Never silent: a stream that began ends in ``[DONE]`` or in an error event."""
        self._close(call, settle.cut(call.meter, call.account.estimate, error.code))
        call.line.code = error.code
        call.reply.finish(error_event(error))

    def _close(self, call: Call, ending: settle.Ending) -> None:
        line = call.line
        line.ending = ending.completeness.value
        line.billable = ending.billable
        line.input = ending.quantities.get("input", 0)
        line.output = ending.quantities.get("output", 0)
        call.account.close(ending)  # last: a journal that fails changes nothing of what is owed

    def _first_byte(self, call: Call) -> None:
        if call.load is not None:
            call.load.prompt_is_done()
        seconds = self.clock() - call.started_at
        call.line.first_byte_ms = round(seconds * 1000, 3)
        self.metrics.observe("tessera_gateway_first_token_seconds", seconds)
        if call.wanted.is_stream and call.meter.has_counts:
            self.admission.shrink(call.grant, call.meter.quantities()["input"])

    def _count(self, call: Call) -> None:
        line = call.line
        if call.meter.is_beyond:
            log.error("engine of %s counted more than was held", call.wanted.model)
            self.metrics.count(
                "tessera_gateway_upstream_failures_total", "kind", "counted_beyond_hold"
            )
        self.metrics.ended(line.ending, input_tokens=line.input, output_tokens=line.output)


def _left(account: Account) -> settle.Ending:
    """The client went: before anything was asked, nothing is owed."""
    if not account.was_asked:
        return settle.refused("client_gone")
    return settle.cut(account.meter, account.estimate, "client_gone")
