"""HTTP/1.1 as a server: bytes in, requests out, answers back. Nothing is decided here.

llhttp parses in strict mode; what it lets through and we do not is refused in ``head.py``.
A connection answers its requests in order, one at a time; a client that goes away cancels the one
at hand.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from enum import Enum, auto
from typing import Any, cast

import httptools

from serving.gateway.errors import (
    BadRequest,
    Busy,
    GatewayError,
    HeadTooLarge,
    TooLarge,
    TooSlow,
    error_body,
    error_headers,
)
from serving.gateway.head import Limits, Request, check_head
from serving.gateway.reply import Reply
from serving.gateway.rhythm import Steps

_ONCE = frozenset(
    {
        b"host",
        b"authorization",
        b"content-type",
        b"content-encoding",
        b"origin",
        b"idempotency-key",
    }
)
_LINGER_SECONDS = 2.0


Handler = Callable[[Request, Reply], Coroutine[Any, Any, None]]


class Phase(Enum):
    IDLE = auto()  # between requests
    HEAD = auto()
    BODY = auto()
    LINGER = auto()  # the last answer is out; what still comes in is thrown away
    GONE = auto()


class Door:
    """All connections of one listener, and what they share.

    ``sweep`` enforces the time limits; its owner calls it about once a second.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits,
        on_refused: Callable[[GatewayError], None] = lambda _: None,
        is_proxy: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.on_refused = on_refused
        self.is_proxy = is_proxy
        self.connections: set[Connection] = set()
        self.by_address: Counter[str] = Counter()
        self.held_bytes = 0  # of request bodies that nobody works on yet
        self.draining = False
        self.date = _date_header()
        self.loop = asyncio.get_running_loop()

    def connection(self) -> Connection:
        """The protocol factory for a listening socket."""
        return Connection(self)

    def enter(self, connection: Connection, address: str) -> bool:
        """Whether there is room for one more of this address. It leaves in any case."""
        limits = self.limits
        has_room = len(self.connections) < limits.connections and (
            self.by_address[address] < limits.connections_per_address or self.is_proxy(address)
        )
        self.connections.add(connection)
        self.by_address[address] += 1
        return has_room

    def leave(self, connection: Connection, address: str) -> None:
        self.connections.discard(connection)
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]

    def drain(self) -> None:
        """From now on every answer is a connection's last."""
        self.draining = True

    def close_idle(self) -> None:
        for connection in tuple(self.connections):
            connection.close_if_idle()

    def abort_all(self) -> None:
        for connection in tuple(self.connections):
            connection.abort()

    @property
    def busy(self) -> int:
        return sum(connection.is_busy for connection in self.connections)

    def sweep(self) -> Steps:
        self.date = _date_header()
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.enforce(now)
            yield


class Connection(asyncio.Protocol):
    """One client connection.

    All of its mutable state: the request being read (``_phase`` to ``_size``), requests read and
    not yet begun (``_waiting``), the bytes of both (``_held``), and the answer at hand (``_reply``,
    ``_task``).
    """

    __slots__ = (
        "_body",
        "_deadline",
        "_door",
        "_head_bytes",
        "_headers",
        "_held",
        "_parser",
        "_peer",
        "_phase",
        "_refusal",
        "_reply",
        "_size",
        "_stalled_since",
        "_target",
        "_task",
        "_waiting",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, door: Door) -> None:
        self._door = door
        self._parser = httptools.HttpRequestParser(self)
        self._phase = Phase.IDLE
        self._deadline = door.loop.time() + door.limits.idle_seconds
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._size = 0
        self._held = 0
        self._refusal: GatewayError | None = None
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._reply: Reply | None = None
        self._task: asyncio.Task[None] | None = None
        self._stalled_since: float | None = None
        self._peer = ""

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "local"
        if not self._door.enter(self, self._peer):
            self._phase = Phase.LINGER
            self._refuse(Busy("Too many connections.", code="connections", retry_after_seconds=1))

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is Phase.LINGER:
            return
        if phase is not Phase.BODY:
            if phase is Phase.IDLE:
                self._begin()
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._stop_reading(_own_error(error))
            return
        except httptools.HttpParserUpgrade:
            self._stop_reading(BadRequest("Upgrades are not spoken here.", rule="http_upgrade"))
            return
        except httptools.HttpParserError as error:
            self._stop_reading(BadRequest(f"Malformed HTTP: {error}.", rule="http_syntax"))
            return
        if self._phase is Phase.HEAD and self._head_bytes > self._door.limits.head_bytes:
            self._stop_reading(HeadTooLarge())
        elif self._phase is Phase.BODY or self._waiting or self._held:
            self._count_held()
            if self._door.held_bytes > self._door.limits.held_bytes:
                self._stop_reading(
                    Busy("Too much is being received.", code="bodies", retry_after_seconds=1)
                )

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.GONE
        self._waiting.clear()
        self._count_held()
        self._door.leave(self, self._peer)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._stalled_since = self._door.loop.time()
        if self._reply is not None and self._reply.flow is not None:
            self._reply.flow.pause()

    def resume_writing(self) -> None:
        self._stalled_since = None
        if self._reply is not None and self._reply.flow is not None:
            self._reply.flow.resume()

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._phase is Phase.IDLE:
            self._begin()

    def on_url(self, part: bytes) -> None:
        self._target += part
        if len(self._target) > self._door.limits.head_bytes:
            raise HeadTooLarge

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.BODY:
            raise BadRequest("Trailers are not taken.", rule="http_trailers")
        key = name.lower()
        if key in _ONCE and key in self._headers:
            raise BadRequest(f"Two '{key.decode()}' headers.", rule="http_duplicate_header")
        self._headers[key] = value
        self._size += len(name) + len(value)
        if len(self._headers) > self._door.limits.headers:
            raise HeadTooLarge

    def on_headers_complete(self) -> None:
        headers, limits = self._headers, self._door.limits
        if self._size > limits.head_bytes:
            raise HeadTooLarge
        check_head(self._parser.get_http_version(), self._target, headers)
        if int(headers.get(b"content-length", b"0")) > limits.body_bytes:
            raise TooLarge(f"The body is over {limits.body_bytes} bytes.")
        self._phase = Phase.BODY
        self._size = 0
        self._deadline = self._door.loop.time() + limits.body_seconds
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            self._continue()

    def _continue(self) -> None:
        if not self.is_busy:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._door.limits.body_bytes:
            raise TooLarge(f"The body is over {self._door.limits.body_bytes} bytes.")
        self._body.append(part)

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method(),
            path=self._target.partition(b"?")[0],
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            peer=self._peer,
        )
        self._waiting.append((request, self._parser.should_keep_alive()))
        self._phase = Phase.IDLE
        self._deadline = self._door.loop.time() + self._door.limits.idle_seconds
        self._body = []
        if len(self._waiting) > self._door.limits.pipelined:
            raise BadRequest("Too many pipelined requests.", rule="http_pipelining")
        self._next()

    # Answering

    @property
    def is_busy(self) -> bool:
        return self._reply is not None

    @property
    def date(self) -> bytes:
        return self._door.date

    @property
    def is_draining(self) -> bool:
        return self._door.draining

    def answered(self, *, keep_alive: bool) -> None:
        """The answer at hand is written; the next request may begin."""
        self._reply = None
        self._task = None
        if not keep_alive:
            self._waiting.clear()
            self._linger()
        elif self._waiting:
            self._next()
        elif self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self._deadline = self._door.loop.time() + self._door.limits.idle_seconds

    def close_if_idle(self) -> None:
        if not self.is_busy and self._phase is Phase.IDLE:
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def enforce(self, now: float) -> None:
        """End what takes too long. A request being answered has no limit here but its reader's."""
        if self._stalled_since is not None:
            if now - self._stalled_since > self._door.limits.stall_seconds:
                self.transport.abort()
            return
        if self.is_busy or now < self._deadline:
            return
        if self._phase in {Phase.HEAD, Phase.BODY}:
            self._stop_reading(TooSlow())
        else:
            self.transport.abort() if self._phase is Phase.LINGER else self.transport.close()

    def _begin(self) -> None:
        self._phase = Phase.HEAD
        self._target = b""
        self._headers = {}
        self._head_bytes = 0
        self._size = 0
        self._deadline = self._door.loop.time() + self._door.limits.head_seconds

    def _next(self) -> None:
        if self._reply is not None or not self._waiting:
            return
        request, keep_alive = self._waiting.popleft()
        self._reply = Reply(self, keep_alive=keep_alive, is_head=request.method == b"HEAD")
        self._task = self._door.loop.create_task(self._answer(request, self._reply))
        if self._held:
            self._count_held()

    def _count_held(self) -> None:
        """What lies here between two reads: a body on its way, and requests not yet begun."""
        held = sum(len(request.body) for request, _ in self._waiting)
        if self._phase is Phase.BODY:
            held += self._size
        self._door.held_bytes += held - self._held
        self._held = held

    async def _answer(self, request: Request, reply: Reply) -> None:
        try:
            await self._door.handler(request, reply)
        finally:
            if not reply.is_finished:
                self.transport.abort()

    def _stop_reading(self, error: GatewayError) -> None:
        """Whatever follows on this connection is not trusted any more."""
        self._phase = Phase.LINGER
        self._body = []
        self._count_held()
        if self.is_busy:
            self._refusal = error
        else:
            self._refuse(error)

    def _refuse(self, error: GatewayError) -> None:
        self._door.on_refused(error)
        reply = Reply(self, keep_alive=False)
        self._reply = reply
        reply.send(error.status, error_body(error), extra=error_headers(error))

    def _linger(self) -> None:
        """Say that nothing follows, and read on for a moment: a reset would destroy the answer."""
        if self._phase is Phase.GONE:
            return
        self._phase = Phase.LINGER
        self._deadline = self._door.loop.time() + _LINGER_SECONDS
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()


def _own_error(error: httptools.HttpParserCallbackError) -> GatewayError:
    """What a callback of ours raised; httptools wraps it."""
    cause = error.__context__ or error.__cause__
    if isinstance(cause, GatewayError):
        return cause
    raise error


def _date_header() -> bytes:
    return b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
