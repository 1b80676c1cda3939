"""CPU time per plain request and per streamed chunk, as the kernel booked it on the processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .load.runs import Run, closed_loop
from .processes import cpu_seconds
from .ways import FAST, PACED, Way

PLAIN_TOKENS = 32
EVENTS_BESIDE_TOKENS = 3  # the role, the usage and the end, as the engine sends them


class Unusable(Exception):
    """A run with failures measures something else."""


@dataclass(frozen=True, slots=True)
class Load:
    plain_requests: int
    plain_connections: int
    streams: int  # all at once
    stream_tokens: int


@dataclass(frozen=True, slots=True)
class Cost:
    plain_us: float
    chunk_us: float


async def measure(ways: Sequence[Way], load: Load, *, repeats: int) -> dict[str, Cost]:
    """The median cost of each way. The ways take turns, so that all meet the same weather."""
    for way in ways:
        await _plain(way, load)
    costs: dict[str, list[Cost]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            costs[way.name].append(Cost(await _plain(way, load), await _chunk(way, load)))
    return {
        name: Cost(median(c.plain_us for c in each), median(c.chunk_us for c in each))
        for name, each in costs.items()
    }


async def _plain(way: Way, load: Load) -> float:
    payload = way.chat(model=FAST, tokens=PLAIN_TOKENS, stream=False)
    requests = max(1, round(load.plain_requests * way.share))
    spent = await _spent(
        way,
        lambda: closed_loop(
            way.address,
            payload,
            connections=min(load.plain_connections, requests),
            requests=requests,
        ),
    )
    return spent / requests * 1e6


async def _chunk(way: Way, load: Load) -> float:
    """All of a stream's cost over its chunks, the start and the end of it included."""
    payload = way.chat(model=PACED, tokens=load.stream_tokens, stream=True)
    streams = max(1, round(load.streams * way.share))
    spent = await _spent(
        way, lambda: closed_loop(way.address, payload, connections=streams, requests=streams)
    )
    return spent / (streams * (load.stream_tokens + EVENTS_BESIDE_TOKENS)) * 1e6


async def _spent(way: Way, load: Callable[[], Awaitable[Run]]) -> float:
    before = cpu_seconds(way.pids)
    run = await load()
    spent = cpu_seconds(way.pids) - before
    if run.failures:
        first = run.failures[0]
        raise Unusable(
            f"{way.name}: {len(run.failures)} of {len(run.replies)} requests failed, the first "
            f"with status {first.status} {first.failure}"
        )
    return spent
