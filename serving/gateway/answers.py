"""Who takes an engine's answer: collected whole, or streamed on to the customer as it comes.

Both hear the connection's callbacks and tell one waiting coroutine when it is over, through
``finished``: a result, or the ``UpstreamError`` or ``GatewayError`` that ended it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serving.gateway.connection import Cut, Garbage, UpstreamError
from serving.gateway.errors import GatewayError
from serving.gateway.reply import EVENTS, Reply
from serving.gateway.stream import EventFilter
from serving.gateway.who import Known

MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024


class PlainAnswer:
    """Collects an answer."""

    __slots__ = ("_limit", "_parts", "_size", "finished", "status")

    def __init__(self, *, limit: int = MAX_ANSWER_BYTES) -> None:
        self.status = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = limit

    def head(self, status: int, content_type: bytes) -> None:
        self.status = status
        if not content_type.startswith(b"application/json") and status == 200:
            raise Garbage(f"content type {content_type[:40]!r}")

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise Garbage("endless answer")
        self._parts.append(data)

    def ended(self) -> None:
        _finish(self.finished, None)

    def failed(self, error: UpstreamError) -> None:
        _finish(self.finished, error)

    @property
    def content(self) -> bytes:
        return b"".join(self._parts)


class StreamAnswer:
    """Passes events on. The status line waits for the first chunk; the last event is the caller's.

    An answer that is no stream (an error with its status) is collected instead.
    """

    __slots__ = (
        "_filter",
        "_is_started",
        "_on_start",
        "_refused",
        "_reply",
        "finished",
        "status",
    )

    def __init__(self, reply: Reply, events: EventFilter, *, on_start: Callable[[], None]) -> None:
        self.status = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reply = reply
        self._filter = events
        self._on_start = on_start
        self._is_started = False
        self._refused = PlainAnswer(limit=MAX_ERROR_BYTES)

    def head(self, status: int, content_type: bytes) -> None:
        self.status = status
        if status == 200 and not content_type.startswith(b"text/event-stream"):
            raise Garbage(f"content type {content_type[:40]!r}")

    def body(self, data: bytes) -> None:
        if self.status != 200:
            self._refused.body(data)
            return
        out = self._filter.feed(data)
        if out:
            if not self._is_started:
                self._is_started = True
                self._reply.start(200, content_type=EVENTS)
                self._on_start()
            self._reply.write(out)
        if self._filter.error is not None:
            raise Garbage("the engine ended the stream with an error")

    def ended(self) -> None:
        is_whole = self.status != 200 or self._filter.is_done
        _finish(self.finished, None if is_whole else Cut("the stream has no end"))

    def failed(self, error: UpstreamError) -> None:
        """After ``[DONE]`` nothing can fail any more."""
        _finish(self.finished, None if self._filter.is_done else error)

    def interrupt(self, error: GatewayError) -> None:
        """End the stream for a reason of our own."""
        _finish(self.finished, error)

    @property
    def content(self) -> bytes:
        return self._refused.content


class OpenStreams:
    """Streams under way, by key, so that they can be ended from outside."""

    def __init__(self) -> None:
        self._by_key: dict[str, tuple[Known, set[StreamAnswer]]] = {}

    def add(self, known: Known, answer: StreamAnswer) -> None:
        _, streams = self._by_key.setdefault(known.principal.key_id, (known, set()))
        streams.add(answer)

    def discard(self, known: Known, answer: StreamAnswer) -> None:
        key_id = known.principal.key_id
        if key_id in self._by_key:
            _, streams = self._by_key[key_id]
            streams.discard(answer)
            if not streams:
                del self._by_key[key_id]

    def callers(self) -> list[Known]:
        return [known for known, _ in self._by_key.values()]

    def end(self, key_id: str, error: GatewayError) -> None:
        _, streams = self._by_key.get(key_id, (None, ()))
        for answer in tuple(streams):
            answer.interrupt(error)

    def end_all(self, error: GatewayError) -> None:
        for key_id in tuple(self._by_key):
            self.end(key_id, error)

    def __len__(self) -> int:
        return sum(len(streams) for _, streams in self._by_key.values())


def _finish(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # the caller is gone, or it was over before
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
