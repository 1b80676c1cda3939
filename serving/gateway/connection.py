"""One connection to an engine and the exchange on it, bounded and distrusted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import httptools

from serving.gateway.ejection import Failure

_MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADERS = 64


class UpstreamError(Exception):
    """The engine did not do its part; the text is for our own log."""

    failure: ClassVar[Failure]


class NotReached(UpstreamError):
    """Nobody took the connection: nothing was asked."""

    failure = Failure.UNREACHABLE


class Cut(UpstreamError):
    """The connection ended before the answer did."""

    failure = Failure.CUT


class Garbage(UpstreamError):
    """What came is no answer of an engine."""

    failure = Failure.GARBAGE


class Silent(UpstreamError):
    """Nothing came in time."""

    failure = Failure.SILENT


class Late(Silent):
    """Nothing came in time, while others had answers from the same replica."""

    failure = Failure.LATE


class Sink(Protocol):
    """Who takes an answer. Calls come in this order; after ``failed`` or ``ended`` none follows.

    ``head`` and ``body`` may raise ``UpstreamError``, which ends the exchange with ``failed``.
    """

    def head(self, status: int, content_type: bytes) -> None: ...
    def body(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def failed(self, error: UpstreamError) -> None: ...


@dataclass(slots=True)
class Pulse:
    """When the last piece of any answer came from an incarnation."""

    heard_at: float = float("-inf")


class EngineConnection(asyncio.Protocol):
    """One connection and the exchange on it, if there is one.

    All of its mutable state: the sink of the exchange, how far its answer is, and since when it
    waits for more of it.
    """

    __slots__ = (
        "_first_seconds",
        "_framed",
        "_head_bytes",
        "_headers",
        "_idle_seconds",
        "_in_head",
        "_is_complete",
        "_is_stream",
        "_keeps_alive",
        "_loop",
        "_open",
        "_parser",
        "_parts",
        "_paused",
        "_pulse",
        "_since",
        "_sink",
        "_status",
        "_transport",
        "_type",
        "exchanges",
        "has_begun",
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
        pulse: Pulse,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.incarnation = incarnation
        self.idle_since = 0.0
        self.is_usable = False
        self.exchanges = 0
        self.has_begun = False  # whether a piece of the answer came
        self._open = registry
        self._pulse = pulse
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
        self._is_stream = False
        self._since = self._first_seconds = self._idle_seconds = 0.0
        self._paused = False

    def send(
        self,
        request: bytes,
        sink: Sink,
        *,
        is_stream: bool,
        first_seconds: float,
        idle_seconds: float,
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
        self.has_begun = False
        self._is_stream = is_stream
        self._first_seconds = first_seconds
        self._idle_seconds = idle_seconds
        self._status = 0
        self._is_complete = False
        self._parts.clear()
        self._since = self._loop.time()
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
        self._since = self._loop.time()
        self._transport.resume_reading()

    @property
    def waits_since(self) -> float | None:
        """Since when a stream waits for its next piece; None where none is owed."""
        is_owed = self._is_stream and self._sink is not None and not self._paused
        return self._since if is_owed else None

    def enforce(self, now: float) -> None:
        limit = self._idle_seconds if self.has_begun else self._first_seconds
        if self._sink is None or self._paused or now - self._since <= limit:
            return
        kind = Late if self._pulse.heard_at > self._since else Silent
        self._fail(kind("no next piece in time" if self.has_begun else "no answer in time"))

    def give_up(self, *, also_whole: bool) -> None:
        """End an exchange that waits for the first piece of its answer."""
        if self._sink is not None and not self.has_begun and (self._is_stream or also_whole):
            self._fail(Silent("the replica answers nobody"))

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
            self.has_begun = True
            self._since = self._pulse.heard_at = self._loop.time()
            sink.body(data)
        if self._is_complete and self._sink is sink:
            self._sink = None
            self.is_usable = self._keeps_alive and not self._paused
            sink.ended()

    def _still_in_head(self) -> None:
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise Garbage("endless header block")

    def _fail(self, error: UpstreamError) -> None:
        sink, self._sink = self._sink, None
        self.abort()
        if sink is not None:
            sink.failed(error)
