"""HTTP/1.1 as a client of engines: pooled connections, every one of them bounded and distrusted.

Only ``PATHS`` are ever asked. A connection carries one exchange at a time and is used again only
when the answer before was read to its end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from serving.contracts import Endpoint, engine_api_key

PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
IDLE_KEEP_SECONDS = 3.0  # engines close idle connections after 5
_CONNECT_SECONDS = 2.0
_MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADERS = 64
_MAX_IDLE_PER_REPLICA = 256


class UpstreamError(Exception):
    """The engine did not do its part; the text is for our own log."""


class NotReached(UpstreamError):
    """Nobody took the connection: nothing was asked."""


class Cut(UpstreamError):
    """The connection ended before the answer did."""


class Garbage(UpstreamError):
    """What came is no answer of an engine."""


class Silent(UpstreamError):
    """Nothing came in time."""


class Sink(Protocol):
    """Who takes an answer. Calls come in this order; after ``failed`` or ``ended`` none follows.

    ``head`` and ``body`` may raise ``UpstreamError``, which ends the exchange with ``failed``.
    """

    def head(self, status: int, content_type: bytes) -> None: ...
    def body(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def failed(self, error: UpstreamError) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds: until the head of an answer, streamed or whole, and between two pieces of it."""

    first_token: float
    answer: float
    idle: float


class Upstream:
    """All of the mutable state: idle connections per incarnation, and every open one."""

    def __init__(self, *, engine_key: bytes) -> None:
        self.opened = 0
        self._engine_key = engine_key
        self._idle: dict[str, list[EngineConnection]] = {}
        self._open: set[EngineConnection] = set()
        self._heads: dict[tuple[str, str], bytes] = {}
        self._loop = asyncio.get_running_loop()

    async def connection(self, endpoint: Endpoint) -> EngineConnection:
        """An idle connection if one is left, else a new one. Raises ``NotReached``."""
        idle = self._idle.get(endpoint.incarnation)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return await self._connect(endpoint)

    def request(self, endpoint: Endpoint, path: str, body: bytes, *, request_id: str) -> bytes:
        """The bytes of a request to one of ``PATHS``, with the replica's own key."""
        head = self._heads.get((endpoint.replica, path))
        if head is None:
            head = self._head(endpoint.replica, path)
            self._heads[endpoint.replica, path] = head
        length = b"%b\r\ncontent-length: %d\r\n\r\n" % (request_id.encode(), len(body))
        return b"".join((head, length, body))

    def release(self, connection: EngineConnection) -> None:
        """Give a connection back, exactly once: kept when its answer was read whole, else cut."""
        if not connection.is_usable:
            connection.abort()
            return
        idle = self._idle.setdefault(connection.incarnation, [])
        if len(idle) >= _MAX_IDLE_PER_REPLICA:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        idle.append(connection)

    def forget(self, incarnation: str) -> None:
        """The incarnation is gone: what is idle is closed, what is under way ends by itself."""
        for connection in self._idle.pop(incarnation, ()):
            connection.abort()

    def sweep(self) -> None:
        """End exchanges that are silent for too long, drop connections that idled too long."""
        now = self._loop.time()
        for connection in tuple(self._open):
            connection.enforce(now)
        for incarnation, idle in self._idle.items():
            for connection in idle:
                if now - connection.idle_since > IDLE_KEEP_SECONDS:
                    connection.abort()
            self._idle[incarnation] = [c for c in idle if c.is_usable]

    def close(self) -> None:
        for connection in tuple(self._open):
            connection.abort()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def _connect(self, endpoint: Endpoint) -> EngineConnection:
        connection = EngineConnection(endpoint.incarnation, self._open, self._loop)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._open_transport(connection, endpoint.address)
        except (OSError, TimeoutError) as error:
            raise NotReached(f"{type(error).__name__}: {endpoint.replica}") from error
        self.opened += 1
        return connection

    async def _open_transport(self, connection: EngineConnection, address: str) -> None:
        kind, _, rest = address.partition(":")
        if kind == "unix":
            await self._loop.create_unix_connection(lambda: connection, rest)
            return
        host, _, port = rest.removeprefix("//").rpartition(":")
        await self._loop.create_connection(lambda: connection, host.strip("[]"), int(port))

    def _head(self, replica: str, path: str) -> bytes:
        assert path in PATHS, "nothing else goes upstream"
        key = engine_api_key(self._engine_key, replica)
        return (
            f"POST {path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {key}\r\nx-request-id: "
        ).encode()


class EngineConnection(asyncio.Protocol):
    """One connection and the exchange on it, if there is one.

    All of its mutable state: the sink of the exchange, how far its answer is, and its deadline.
    """

    __slots__ = (
        "_deadline",
        "_first_deadline",
        "_framed",
        "_head_bytes",
        "_headers",
        "_idle_seconds",
        "_in_head",
        "_is_complete",
        "_keeps_alive",
        "_loop",
        "_open",
        "_parser",
        "_parts",
        "_paused",
        "_sink",
        "_status",
        "_transport",
        "_type",
        "exchanges",
        "idle_since",
        "incarnation",
        "is_usable",
        "on_body",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        incarnation: str,
        registry: set[EngineConnection],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.incarnation = incarnation
        self.idle_since = 0.0
        self.is_usable = False
        self.exchanges = 0
        self._open = registry
        self._loop = loop
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # before the parser is made: it looks only once
        self._parser = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._in_head = False
        self._head_bytes = 0
        self._headers = 0
        self._type = b""
        self._framed = False
        self._status = 0
        self._is_complete = False
        self._keeps_alive = False
        self._deadline = self._first_deadline = 0.0
        self._idle_seconds = 0.0
        self._paused = False

    def send(
        self, request: bytes, sink: Sink, *, first_seconds: float, idle_seconds: float
    ) -> None:
        """Ask; the sink hears the rest. The connection must be usable."""
        self.is_usable = False
        self.exchanges += 1
        self._sink = sink
        self._in_head = True
        self._head_bytes = 0
        self._headers = 0
        self._type = b""
        self._framed = False
        self._idle_seconds = idle_seconds
        self._status = 0
        self._is_complete = False
        self._parts.clear()
        self._deadline = self._first_deadline = self._loop.time() + first_seconds
        self._transport.write(request)

    @property
    def was_stale(self) -> bool:
        """Whether not one byte came in the exchange at hand."""
        return self._in_head and self._head_bytes == 0

    def abort(self) -> None:
        """Cut at once, whatever is under way; the sink hears nothing any more."""
        self._sink = None
        self.is_usable = False
        self._transport.abort()

    def pause(self) -> None:
        """The reader of the answer is slow: let the engine feel it."""
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self._deadline = self._loop.time() + self._idle_seconds
        self._transport.resume_reading()

    def enforce(self, now: float) -> None:
        if self._sink is not None and not self._paused and now > self._deadline:
            self._fail(Silent("no answer in time" if self._in_head else "no next piece in time"))

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.is_usable = True
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse all that came, then hand it on in one piece: a burst of events is one write."""
        if self._sink is None:  # bytes that nobody asked for
            self.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
        self._deadline = self._loop.time() + self._idle_seconds
        try:
            self._parser.feed_data(data)
            self._deliver(self._sink)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, UpstreamError):
                raise
            self._fail(error.__context__)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Garbage(f"malformed HTTP: {error}"))
        except UpstreamError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        self._open.discard(self)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.failed(Cut("connection lost"))

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise Garbage("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        if self._headers > _MAX_HEADERS:
            raise Garbage("too many headers")
        key = name.lower()
        if key == b"content-type":
            self._type = value
        elif key in {b"content-length", b"transfer-encoding"}:
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._framed or status < 200:
            raise Garbage(f"status {status} without a length")
        self._status = status

    def on_message_complete(self) -> None:
        self._is_complete = True
        self._keeps_alive = self._parser.should_keep_alive()  # it knows only now

    def _deliver(self, sink: Sink) -> None:
        if self._in_head:
            if not self._status:
                self._still_in_head()
                return
            self._in_head = False
            sink.head(self._status, self._type)
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            sink.body(data)
        if self._is_complete and self._sink is sink:
            self._sink = None
            self.is_usable = self._keeps_alive and not self._paused
            sink.ended()

    def _still_in_head(self) -> None:
        self._deadline = self._first_deadline
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise Garbage("endless header block")

    def _fail(self, error: UpstreamError) -> None:
        sink, self._sink = self._sink, None
        self.abort()
        if sink is not None:
            sink.failed(error)
