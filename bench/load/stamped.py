"""Streams whose tokens say when they left the engine: what each chunk took to come here."""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from .client import Client, Reply, connect

_STAMP = re.compile(rb'"content":"([0-9]{10,})"')
_AT_ONCE = 64  # streams begun in one go


class Delays:
    """Milliseconds from the engine to here, one per chunk, while it ``is_counting``."""

    def __init__(self) -> None:
        self.values = array("d")
        self.is_counting = True

    def take(self, body: bytes) -> int:
        """How many tokens came."""
        stamps = _STAMP.findall(body)
        if self.is_counting:
            now = time.monotonic_ns()
            self.values.extend((now - int(stamp)) / 1e6 for stamp in stamps)
        return len(stamps)

    def quantile(self, share: float) -> float:
        """Of all chunks that came; 0 where none did."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class StampedClient(Client):
    """A client that looks into every piece it gets."""

    def __init__(self, delays: Delays) -> None:
        super().__init__()
        self._delays = delays
        self.first_token_at = 0.0  # of the reply coming in or last come, as its other times

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self._delays.take(body) and not self.first_token_at:
            self.first_token_at = time.perf_counter()


@asynccontextmanager
async def held_streams(
    address: str, payload: bytes, *, streams: int, delays: Delays, over_seconds: float
) -> AsyncIterator[list[asyncio.Future[Reply]]]:
    """So many streams under way, begun evenly over ``over_seconds``; hung up on at the end."""
    clients: list[Client] = []
    answers: list[asyncio.Future[Reply]] = []
    start = time.perf_counter()
    try:
        for first in range(0, streams, _AT_ONCE):
            count = min(_AT_ONCE, streams - first)
            new = [await connect(address, partial(StampedClient, delays)) for _ in range(count)]
            clients += new
            answers += [client.ask(payload) for client in new]
            late = start + over_seconds * (first + count) / streams - time.perf_counter()
            await asyncio.sleep(max(0.0, late))
        yield answers
    finally:
        for client in clients:
            client.leave()
        await asyncio.sleep(0)
