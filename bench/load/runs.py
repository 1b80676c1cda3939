"""Ways of asking: as fast as answers come, at a fixed rate whatever comes, at given instants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from .client import Client, Reply, connect

MAX_CONNECTIONS = 8_192
MAX_REQUESTS = 2_000_000


@dataclass(frozen=True, slots=True)
class Run:
    replies: list[Reply]
    seconds: float

    @property
    def failures(self) -> list[Reply]:
        return [reply for reply in self.replies if not reply.is_success]

    @property
    def events(self) -> int:
        return sum(reply.events for reply in self.replies)

    @property
    def rate(self) -> float:
        return len(self.replies) / self.seconds


async def closed_loop(address: str, payload: bytes, *, connections: int, requests: int) -> Run:
    """Each connection asks again as soon as it has its answer, until all requests are made."""
    _refuse_excess(connections, requests)
    clients = [await connect(address) for _ in range(connections)]
    replies: list[Reply] = []
    left = count(requests, -1)
    start = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(_ask_until_done(client, payload, left, replies))
    finally:
        for client in clients:
            client.leave()
    return Run(replies, time.perf_counter() - start)


async def fixed_rate(address: str, payload: bytes, *, rate: float, seconds: float) -> Run:
    """Requests are due at even intervals, and time counts from when one was due, sent or not."""
    requests = int(rate * seconds)
    _refuse_excess(1, requests)
    pool = _Pool(address)
    start = time.perf_counter() + 0.05
    try:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for number in range(requests):
                due_at = start + number / rate
                await _sleep_until(due_at)
                tasks.append(group.create_task(pool.ask(payload, due_at)))
        return Run([task.result() for task in tasks], time.perf_counter() - start)
    finally:
        pool.close()


async def timed(address: str, asks: Sequence[tuple[float, bytes]]) -> Run:
    """Each request at its own instant, in seconds from the start; time counts from there."""
    _refuse_excess(1, len(asks))
    pool = _Pool(address)
    start = time.perf_counter() + 0.05
    try:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for instant, payload in asks:
                await _sleep_until(start + instant)
                tasks.append(group.create_task(pool.ask(payload, start + instant)))
        return Run([task.result() for task in tasks], time.perf_counter() - start)
    finally:
        pool.close()


class _Pool:
    """Connections that are idle, and a bound on all of them."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: list[Client] = []
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    async def ask(self, payload: bytes, due_at: float) -> Reply:
        async with self._room:
            client = self._idle.pop() if self._idle else await connect(self._address)
            reply = await client.ask(payload, due_at=due_at)
            if client.is_open:
                self._idle.append(client)
            return reply

    def close(self) -> None:
        for client in self._idle:
            client.leave()


async def _ask_until_done(
    client: Client, payload: bytes, left: count[int], replies: list[Reply]
) -> None:
    while next(left) > 0 and client.is_open:
        replies.append(await client.ask(payload))


async def _sleep_until(instant: float) -> None:
    delay = instant - time.perf_counter()
    if delay > 0:
        await asyncio.sleep(delay)


def _refuse_excess(connections: int, requests: int) -> None:
    if connections > MAX_CONNECTIONS or requests > MAX_REQUESTS:
        raise ValueError(
            f"At most {MAX_CONNECTIONS} connections and {MAX_REQUESTS} requests in one run."
        )
