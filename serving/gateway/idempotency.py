"""``Idempotency-Key``: the same request again is answered again, and charged once.

Who may run is decided in PostgreSQL, by the one insert that wins, before anything is asked of an
engine; the answer is kept in Redis. Whatever Redis loses, a key that was charged stays refused for
its day. PostgreSQL away: such requests, and no others, get 503.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg

from serving.gateway.access import Line
from serving.gateway.answerbook import (
    LEASE_SECONDS,
    MAX_ANSWER_BYTES,
    AnswerBook,
    BookDown,
    Claim,
    Record,
    State,
)
from serving.gateway.database import Database, SourceDown
from serving.gateway.errors import BadRequest, Busy, GatewayError
from serving.gateway.fields import Wanted
from serving.gateway.head import Request
from serving.gateway.held import HeldReply, Infer
from serving.gateway.reply import EVENTS, JSON, Reply
from serving.gateway.who import Known

log = logging.getLogger(__name__)

HEADER = b"idempotency-key"
RETRY_SECONDS = 1.0
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_CLAIM = "SELECT * FROM tessera_idempotency_claim(%s, %s, %s, %s, %s)"
_RELEASE = "SELECT tessera_idempotency_release(%s, %s)"


class KeyUsed(GatewayError):
    """409: the key stands for a request that was made before; this one is not run."""

    code = "idempotency_key_reused"
    status = 409
    default_message = (
        "This Idempotency-Key was used for another request. A key stands for one request, byte for"
        " byte, for 24 hours; use a new one."
    )


class KeyInUse(KeyUsed):
    code = "idempotency_key_in_use"
    retryable = True
    default_message = "The first request with this Idempotency-Key is still running."


class AnswerTooLarge(KeyUsed):
    code = "idempotency_answer_too_large"
    default_message = (
        "The request with this Idempotency-Key was answered and charged; its answer was too large"
        " to be kept. Use a new key to ask again."
    )


class AnswerIncomplete(KeyUsed):
    code = "idempotency_answer_incomplete"
    default_message = (
        "The request with this Idempotency-Key ended before its answer was whole, and what was"
        " generated was charged. Use a new key to ask again."
    )


class OutcomeUnknown(KeyUsed):
    code = "idempotency_outcome_unknown"
    default_message = (
        "The request with this Idempotency-Key may have been answered and charged; its answer is"
        " not kept any more. Usage tells whether it was; use a new key to ask again."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """The request that a key stands for, as PostgreSQL has it."""

    event_id: str
    is_same_body: bool
    age_seconds: float


def parsed_key(value: bytes) -> bytes:
    """Raises ``BadRequest`` for what is no key: 1 to 255 visible ASCII characters are one."""
    if _KEY.fullmatch(value) is None:
        raise BadRequest(
            "An Idempotency-Key has 1 to 255 visible ASCII characters.",
            code="invalid_idempotency_key",
            param="Idempotency-Key",
        )
    return value


def refusal(record: Record, body_hash: bytes) -> GatewayError | None:
    """Why a request whose key has this record is not answered from it; nothing if it is. Pure."""
    if record.body_hash != body_hash:
        return KeyUsed()
    match record.state:
        case State.RUNNING:
            return KeyInUse(retry_after_seconds=RETRY_SECONDS)
        case State.TOO_LARGE:
            return AnswerTooLarge()
        case State.CUT:
            return AnswerIncomplete()
        case State.WHOLE:
            return None


def refusal_without_record(first: First, *, is_book_open: bool) -> GatewayError:
    """What a request hears whose key is taken, and of which Redis knows nothing. Pure."""
    if not first.is_same_body:
        return KeyUsed()
    if not is_book_open:
        return _unavailable()
    if first.age_seconds < LEASE_SECONDS:  # it may run, and have had no time to say so
        return KeyInUse(retry_after_seconds=RETRY_SECONDS)
    return OutcomeUnknown(f"{OutcomeUnknown.default_message} It was req_{first.event_id}.")


class Ledger(Protocol):
    """Which request a key stands for, for its day."""

    async def claim(self, claim: Claim) -> First | None:
        """The request that it stands for; nothing when that is this one now. Raises
        ``SourceDown``.
        """

    async def release(self, claim: Claim) -> None:
        """It came to nothing that is owed: the key is free. Raises ``SourceDown``."""


class PostgresLedger:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, claim: Claim) -> First | None:
        row = await self._call(
            _CLAIM,
            (claim.key_hash, claim.body_hash, claim.event_id, claim.organization, claim.project),
        )
        if row is None:
            raise SourceDown("the claim has no answer")
        is_ours, event_id, is_same_body, age_seconds = row
        if is_ours:
            return None
        return First(event_id=event_id, is_same_body=is_same_body, age_seconds=age_seconds)

    async def release(self, claim: Claim) -> None:
        await self._call(_RELEASE, (claim.key_hash, claim.event_id))

    async def _call(self, query: Any, parameters: tuple[object, ...]) -> tuple[Any, ...] | None:
        try:
            return await self._database.fetch(query, parameters)
        except psycopg.errors.UndefinedFunction as error:
            raise SourceDown("the database is a release behind") from error


class RecordedReply(HeldReply):
    """Remembers the answer that passes, up to ``MAX_ANSWER_BYTES``, and holds its end back."""

    __slots__ = ("_parts", "_size", "content_type")

    def __init__(self, inner: Reply) -> None:
        super().__init__(inner)
        self.content_type = b""
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def is_whole(self) -> bool:
        return self._end is not None

    @property
    def content(self) -> bytes | None:
        """Nothing for one that is too large."""
        return None if self._size > MAX_ANSWER_BYTES else b"".join(self._parts)

    def send(
        self, status: int, body: bytes, *, content_type: bytes = JSON, extra: bytes = b""
    ) -> None:
        self.content_type = content_type
        self._remember(body)
        super().send(status, body, content_type=content_type, extra=extra)

    def start(self, status: int, *, content_type: bytes) -> None:
        self.content_type = content_type
        super().start(status, content_type=content_type)

    def write(self, data: bytes) -> None:
        self._remember(data)
        super().write(data)

    def finish(self, last: bytes) -> None:
        self._remember(last)
        super().finish(last)

    def _remember(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            self._parts.clear()
        else:
            self._parts.append(data)


class Idempotency:
    """Calls that carry a key. All of the mutable state: those that run, and what is being written.

    The record is there before the answer's last byte; a client that has it whole can have it again.
    """

    def __init__(
        self,
        infer: Infer,
        *,
        book: AnswerBook,
        ledger: Ledger,
        count: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        self._infer = infer
        self._book = book
        self._ledger = ledger
        self._count = count
        self._running: set[Claim] = set()
        self._writing: set[asyncio.Task[None]] = set()

    async def infer(  # noqa: PLR0913, PLR0917 - a call, and the request it came as
        self,
        key: bytes,
        request: Request,
        known: Known,
        wanted: Wanted,
        reply: Reply,
        line: Line,
    ) -> None:
        """Answer the call, or answer again. Raises ``DomainError`` while nothing has been sent."""
        claim = self._claim_of(known, parsed_key(key), request, line)
        record = await self._claim(claim)
        if record is None:
            self._count("run")
            await self._run(claim, known, wanted, reply, line)
            return
        error = refusal(record, claim.body_hash)
        if error is not None:
            self._count(error.code)
            raise error
        self._repeat(claim, record, reply)
        self._count("repeated")

    async def renew(self) -> None:
        """Push the leases of what runs ahead; call it three times per lease."""
        for claim in tuple(self._running):
            await self._try(self._book.renew(claim))

    async def settled(self) -> None:
        """Wait until everything begun is written, or given up."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _claim_of(self, known: Known, key: bytes, request: Request, line: Line) -> Claim:
        principal = known.principal
        return Claim(
            key_hash=self._book.key_hash(principal.project, key),
            body_hash=self._book.body_hash(request.path, request.body),
            event_id=line.request_id.removeprefix("req_"),
            organization=principal.organization,
            project=principal.project,
        )

    async def _claim(self, claim: Claim) -> Record | None:
        """What the key stands for; nothing when it is this request."""
        is_book_open = True
        try:
            record = await self._book.claim(claim)
        except BookDown:
            record, is_book_open = None, False
        if record is not None:
            return record
        try:
            known = await self._ledger.claim(claim)
        except SourceDown as error:
            await self._try(self._book.drop(claim))
            raise _unavailable() from error
        if known is None:
            return None
        await self._try(self._book.drop(claim))
        refused = refusal_without_record(known, is_book_open=is_book_open)
        self._count(refused.code)
        raise refused

    async def _run(
        self, claim: Claim, known: Known, wanted: Wanted, reply: Reply, line: Line
    ) -> None:
        recorded = RecordedReply(reply)
        self._running.add(claim)
        try:
            await self._infer(known, wanted, recorded, line)
        finally:
            self._running.discard(claim)
            writing = self._begin(self._conclude(claim, recorded, line))
            await asyncio.shield(writing)
        recorded.release()

    async def _conclude(self, claim: Claim, recorded: RecordedReply, line: Line) -> None:
        """Write down what became of it, also when the client is gone."""
        if not line.billable:
            try:
                await self._ledger.release(claim)
            except SourceDown as error:
                log.warning("a key stays taken, nothing is owed for it: %s", error)
            await self._try(self._book.drop(claim))
        elif not recorded.is_whole or line.code:
            await self._try(self._book.end(claim, State.CUT))
        elif (content := recorded.content) is None:
            await self._try(self._book.end(claim, State.TOO_LARGE))
        else:
            await self._try(self._book.keep(claim, recorded.content_type, content))

    def _repeat(self, claim: Claim, record: Record, reply: Reply) -> None:
        try:
            content = self._book.opened(claim, record)
        except BookDown as error:
            log.warning("a kept answer is not believed: %s", error)
            raise OutcomeUnknown from error
        reply.extra += b"idempotent-replayed: true\r\nx-original-request-id: req_%b\r\n" % (
            record.event_id.encode()
        )
        if record.content_type == EVENTS:
            reply.start(200, content_type=EVENTS)
            reply.finish(content)
        else:
            reply.send(200, content)

    async def _try(self, work: Awaitable[None]) -> None:
        """Redis is allowed to miss it: a later repeat is then refused rather than answered."""
        try:
            await work
        except BookDown as error:
            log.debug("not written: %s", error)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task


def _unavailable() -> Busy:
    return Busy(
        "Requests with an Idempotency-Key cannot be taken right now; try again shortly.",
        code="idempotency_unavailable",
        retry_after_seconds=RETRY_SECONDS,
    )
