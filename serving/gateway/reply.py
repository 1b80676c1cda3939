"""The one answer to one request, as bytes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Protocol

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"

_STATUS = {int(s): b"HTTP/1.1 %d %s\r\n" % (s, s.phrase.encode()) for s in HTTPStatus}


class Flow(Protocol):
    """Whatever feeds an answer, so that a slow reader slows it down."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Wire(Protocol):
    """The connection that an answer goes out on."""

    transport: asyncio.Transport

    @property
    def date(self) -> bytes: ...
    @property
    def is_draining(self) -> bool: ...
    def answered(self, *, keep_alive: bool) -> None: ...


class Reply:
    """The one answer to a request: ``send`` it whole, or ``start``, ``write`` and ``finish``.

    ``comfort`` may come before ``start``: it says 200 and a comment, no part of the answer.
    """

    __slots__ = (
        "_has_started",
        "_is_head",
        "_keep_alive",
        "_wire",
        "extra",
        "flow",
        "is_finished",
        "status",
    )

    def __init__(self, wire: Wire, *, keep_alive: bool, is_head: bool = False) -> None:
        self._wire = wire
        self._keep_alive = keep_alive
        self._is_head = is_head
        self.extra = b""  # header lines that every answer to this request carries
        self.flow: Flow | None = None
        self.status = 0
        self._has_started = False
        self.is_finished = False

    @property
    def has_started(self) -> bool:
        """Something of the answer is out."""
        return self._has_started

    @property
    def is_waited_for(self) -> bool:
        """The status line is out, and nothing of the answer yet."""
        return self.status != 0 and not self._has_started

    def comfort(self) -> None:
        """Tell the client of a stream that its request is still waiting."""
        if self.status == 0:
            self._begin(200, EVENTS)
        self.write(b": waiting\n\n")

    def send(
        self, status: int, body: bytes, *, content_type: bytes = JSON, extra: bytes = b""
    ) -> None:
        self._has_started = True
        head = self._head(status, content_type, extra)
        length = b"content-length: %d\r\n\r\n" % len(body)
        content = b"" if self._is_head else body
        self._wire.transport.write(b"".join((head, length, content)))
        self._done()

    def start(self, status: int, *, content_type: bytes) -> None:
        self._has_started = True
        if self.status == 0:
            self._begin(status, content_type)

    def write(self, data: bytes) -> None:
        self._wire.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self, last: bytes) -> None:
        """Write ``last`` and end the body, in one piece."""
        if self.status == 0:  # a stream of nothing else
            self.start(200, content_type=EVENTS)
        self._wire.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))
        self._done()

    def _begin(self, status: int, content_type: bytes) -> None:
        head = self._head(status, content_type, b"cache-control: no-cache\r\n")
        self._wire.transport.write(head + b"transfer-encoding: chunked\r\n\r\n")

    def _head(self, status: int, content_type: bytes, extra: bytes) -> bytes:
        self.status = status
        if self._wire.is_draining:
            self._keep_alive = False
        return b"".join(
            (
                _STATUS[status],
                self._wire.date,
                b"content-type: ",
                content_type,
                b"\r\n",
                self.extra,
                extra,
                b"" if self._keep_alive else b"connection: close\r\n",
            )
        )

    def _done(self) -> None:
        self.is_finished = True
        self.flow = None
        self._wire.answered(keep_alive=self._keep_alive)
