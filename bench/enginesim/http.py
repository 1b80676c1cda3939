"""HTTP/1.1 on llhttp: bytes in, requests out, answers back in order. Decides nothing.

A connection handles one request at a time and keeps the rest of a pipeline waiting. When the peer
leaves, what is being answered is told so through ``Work.abandoned``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, cast

import httptools

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nserver: uvicorn\r\n".encode()
    for status in HTTPStatus
}
_JSON = b"content-type: application/json\r\n"
_EVENT_STREAM = (
    _STATUS_LINES[200]
    + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Work(Protocol):
    """An answer under way."""

    def abandoned(self) -> None:
        """The peer left; nothing more can be sent."""


@dataclass(slots=True)
class Request:
    method: str = ""
    path: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    keep_alive: bool = True


Handler = Callable[[Request, "Connection"], Work | None]
"""Answers a request, now or later; hands back the work where it is later."""


class Connection(asyncio.Protocol):
    """One peer. Mutable state: the request being read, those waiting, the work under way."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._reading = Request()
        self._body: list[bytes] = []
        self._waiting: deque[Request] = deque()
        self._busy = False
        self._keep_alive = True
        self._work: Work | None = None
        self.writable = True

    # What an answer calls

    def send(self, status: int, body: bytes, *, headers: bytes = _JSON) -> None:
        """A whole answer. ``headers`` are ready-made lines."""
        self._write(
            b"%bcontent-length: %d\r\n%b\r\n%b" % (_STATUS_LINES[status], len(body), headers, body)
        )
        self._answered()

    def start_stream(self) -> None:
        self._write(_EVENT_STREAM)

    def send_chunk(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self._write(b"0\r\n\r\n")
        self._answered()

    def send_raw(self, data: bytes) -> None:
        """Bytes that are no HTTP of ours: what a broken engine would send."""
        self._write(data)

    def cut(self) -> None:
        """Close, also in the middle of an answer, which is over then."""
        self._work = None
        if self._transport is not None:
            self._transport.close()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.send(400, b"Invalid HTTP request received.", headers=b"connection: close\r\n")
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        if self._work is not None:
            work, self._work = self._work, None
            work.abandoned()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    # httptools

    def on_url(self, url: bytes) -> None:
        self._reading.path = url.partition(b"?")[0].decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reading.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = self._reading
        request.method = self._parser.get_method().decode("latin-1")
        request.keep_alive = self._parser.should_keep_alive()
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._reading = Request()
        self._body.clear()
        if self._busy:
            self._waiting.append(request)
        else:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        self._busy = True
        self._keep_alive = request.keep_alive
        work = self._handler(request, self)
        if self._busy:
            self._work = work

    def _answered(self) -> None:
        self._busy = False
        self._work = None
        if not self._keep_alive:
            self.cut()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._answer_next)

    def _answer_next(self) -> None:
        if self._waiting and not self._busy:
            self._answer(self._waiting.popleft())

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
