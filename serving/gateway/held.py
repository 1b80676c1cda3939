"""An answer whose last byte waits for something: for the disk in ``strict`` mode, for its record.

Everything else passes as it comes. Calls that wait for nothing never meet this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from kernel.errors import DomainError
from serving.gateway.access import Line
from serving.gateway.errors import error_event
from serving.gateway.fields import Wanted
from serving.gateway.reply import JSON, Flow, Reply
from serving.gateway.who import Known

Infer = Callable[[Known, Wanted, Reply, Line], Awaitable[None]]
"""Answers one call. Raises ``DomainError`` while nothing has been sent."""


class HeldReply(Reply):
    """Passes ``inner`` everything but the end of the answer, which ``release`` sends."""

    __slots__ = ("_end", "_inner")

    def __init__(self, inner: Reply) -> None:
        self._inner = inner
        self._end: Callable[[], None] | None = None

    @property
    def flow(self) -> Flow | None:
        return self._inner.flow

    @flow.setter
    def flow(self, flow: Flow | None) -> None:
        self._inner.flow = flow

    @property
    def extra(self) -> bytes:
        return self._inner.extra

    @extra.setter
    def extra(self, extra: bytes) -> None:
        self._inner.extra = extra

    @property
    def has_started(self) -> bool:
        return self._inner.has_started or self._end is not None

    def send(
        self, status: int, body: bytes, *, content_type: bytes = JSON, extra: bytes = b""
    ) -> None:
        self._end = partial(self._inner.send, status, body, content_type=content_type, extra=extra)

    def start(self, status: int, *, content_type: bytes) -> None:
        self._inner.start(status, content_type=content_type)

    def write(self, data: bytes) -> None:
        self._inner.write(data)

    def finish(self, last: bytes) -> None:
        self._end = partial(self._inner.finish, last)

    def release(self) -> None:
        """Send the end, if there is one."""
        if self._end is not None:
            self._end()


class Strict:
    """Calls whose settle is on the disk before the client has its last byte.

    A disk that fails is never silent: the answer ends as ``journal_full`` instead, plain or as an
    error event.
    """

    def __init__(self, infer: Infer, *, durable: Callable[[], Awaitable[None]]) -> None:
        self._infer = infer
        self._durable = durable

    async def infer(self, known: Known, wanted: Wanted, reply: Reply, line: Line) -> None:
        held = HeldReply(reply)
        try:
            await self._infer(known, wanted, held, line)
        except DomainError:
            await self._durable()  # what is not owed must not be owed after a power cut either
            raise
        try:
            await self._durable()
        except DomainError as error:
            if not reply.has_started:
                raise
            line.code = error.code
            reply.finish(error_event(error))
        else:
            held.release()
