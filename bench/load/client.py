"""One keep-alive connection that asks and measures. Cheap enough not to be what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class LoadRefused(Exception):
    """The address is not on this machine."""


@dataclass(slots=True)
class Reply:
    """What came back and when; times are of ``time.perf_counter``, 0.0 for what never came."""

    due_at: float  # when it should have been sent; equal to sent_at in a closed loop
    sent_at: float
    status: int = 0
    first_at: float = 0.0  # first byte of the body
    done_at: float = 0.0
    events: int = 0
    request_id: str = ""
    failure: str = ""  # empty for an answer that ended as HTTP says it should
    chunks: list[bytes] = field(default_factory=list)

    @property
    def is_success(self) -> bool:
        return self.status == 200 and not self.failure

    @property
    def seconds(self) -> float:
        return self.done_at - self.due_at

    @property
    def first_seconds(self) -> float:
        return self.first_at - self.due_at

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def request_bytes(path: str, body: bytes, *, key: str, headers: tuple[str, ...] = ()) -> bytes:
    """A POST as it goes over the wire, made once and sent many times."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {key}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def connect(address: str, factory: Callable[[], Client] | None = None) -> Client:
    """``address`` is ``unix:<path>`` or ``http://<loopback>:<port>``. Raises ``OSError``."""
    factory = factory or Client
    loop = asyncio.get_running_loop()
    if address.startswith("unix:"):
        _, client = await loop.create_unix_connection(factory, address.removeprefix("unix:"))
        return client
    host, _, port = address.removeprefix("http://").rpartition(":")
    if host not in LOOPBACK:
        raise LoadRefused(f"{address} is not on this machine; load is only made here.")
    _, client = await loop.create_connection(factory, host, int(port))
    return client


class Client(asyncio.Protocol):
    """Asks one thing at a time. Mutable state: the reply coming in, and who waits for it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._keeps_body = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def coming(self) -> Reply | None:
        """What has come in so far of the reply that is waited for."""
        return self._reply

    def ask(
        self, payload: bytes, *, due_at: float = 0.0, keep_body: bool = False
    ) -> asyncio.Future[Reply]:
        """The reply, when it has ended. A broken one is a reply with a ``failure``, never an
        exception.
        """
        assert self._waiter is None
        now = time.perf_counter()
        self._reply = Reply(due_at=due_at or now, sent_at=now)
        self._keeps_body = keep_body
        self._waiter = asyncio.get_running_loop().create_future()
        waiter = self._waiter
        if self._transport is None:
            self._finish("not connected")
        else:
            self._transport.write(payload)
        return waiter

    def leave(self) -> None:
        """Hang up, also in the middle of a reply."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"not HTTP: {error}")
            self.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(f"connection lost: {exc}" if exc else "connection closed")

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reply is not None and name.lower() == b"x-request-id":
            self._reply.request_id = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._reply is not None:
            self._reply.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        reply = self._reply
        if reply is None:
            return
        if not reply.first_at:
            reply.first_at = time.perf_counter()
        reply.events += body.count(b"\n\n")
        if self._keeps_body:
            reply.chunks.append(body)

    def on_message_complete(self) -> None:
        self._finish("")

    def _finish(self, failure: str) -> None:
        reply, waiter = self._reply, self._waiter
        self._reply = self._waiter = None
        if reply is None or waiter is None:
            return
        reply.done_at = time.perf_counter()
        reply.failure = failure
        if not waiter.done():
            waiter.set_result(reply)
