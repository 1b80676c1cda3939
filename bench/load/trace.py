"""Real traffic, replayed: when each request came, how long its prompt and its answer were."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from .client import Client, Reply, connect
from .stamped import Delays, StampedClient


@dataclass(frozen=True, slots=True)
class Ask:
    at: float  # seconds after the first
    prompt_tokens: int
    output_tokens: int


@dataclass(slots=True)
class Replay:
    """``lateness``: seconds by which the load generator itself was late, the worst of all."""

    replies: list[Reply] = field(default_factory=list)
    delays: Delays = field(default_factory=Delays)
    seconds: float = 0.0
    lateness: float = 0.0


def read(path: Path) -> list[Ask]:
    """Azure's trace of conversations: TIMESTAMP,ContextTokens,GeneratedTokens."""
    asks: list[Ask] = []
    first: datetime | None = None
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            first = first or at
            seconds = (at - first).total_seconds()
            asks.append(Ask(seconds, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
    return asks


def window(asks: Sequence[Ask], *, speed: float, seconds: float) -> list[Ask]:
    """What comes in so many seconds at that speed, from the beginning."""
    scaled = [Ask(ask.at / speed, ask.prompt_tokens, ask.output_tokens) for ask in asks]
    return [ask for ask in scaled if ask.at < seconds]


async def replay(address: str, asks: Sequence[Ask], payload: Callable[[Ask], bytes]) -> Replay:
    """Every request at its instant, whatever becomes of those before it, each to its end."""
    found = Replay()
    idle: list[Client] = []
    due = [(ask.at, payload(ask)) for ask in asks]
    start = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as group:
        for at, data in due:
            delay = start + at - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            found.lateness = max(found.lateness, -delay)
            group.create_task(_ask(address, data, start + at, idle, found))
    found.seconds = time.perf_counter() - start
    for client in idle:
        client.leave()
    return found


async def _ask(address: str, data: bytes, due_at: float, idle: list[Client], found: Replay) -> None:
    client = idle.pop() if idle else None
    if client is None or not client.is_open:
        client = await connect(address, partial(StampedClient, found.delays))
    found.replies.append(await client.ask(data, due_at=due_at))
    if client.is_open:
        idle.append(client)
