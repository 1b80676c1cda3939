"""Many streams in one gateway process: what each takes of memory, and how long a chunk takes.

``python -m bench streams``: 5,000 streams at one chunk a second, then 500 at twenty. The engine
writes into each chunk when it left, so its way through is known to the microsecond; "added" is the
difference to going straight to the engine. Memory is the proportional set size (PSS), all of it:
the process with the streams less the process before them.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from .cost import Unusable
from .load.stamped import Delays, held_streams
from .processes import cpu_seconds, pss_bytes
from .results import Row, rows_beside
from .ways import BRISK, SLOW, Way, Ways, open_ways

PSS_TARGET_KB = 40.0
ADDED_P99_MS = 10.0
_SETTLE_SECONDS = 2.0
_ENDLESS = 10_000  # tokens: no stream ends by itself


@dataclass(frozen=True, slots=True)
class Crowd:
    model: str
    streams: int
    rate: float  # chunks a second of each
    ramp_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Milliseconds of a chunk on its way, kilobytes per stream, microseconds of CPU per chunk."""

    p50: float
    p99: float
    kilobytes: float
    chunk_us: float

    def less(self, direct: Seen) -> Seen:
        """What is added to going straight to the engine."""
        return replace(self, p50=self.p50 - direct.p50, p99=self.p99 - direct.p99)

    def figures(self) -> list[float]:
        """In the order of ``_FIGURES``."""
        return [self.kilobytes, self.chunk_us, self.p50, self.p99]


FULL = (Crowd(SLOW, 5000, 1.0, 10.0, 15.0), Crowd(BRISK, 500, 20.0, 2.0, 10.0))
SHORT = (Crowd(SLOW, 200, 1.0, 1.0, 3.0), Crowd(BRISK, 50, 20.0, 0.5, 2.0))
_FIGURES = (
    ("PSS of each", "kB", PSS_TARGET_KB),
    ("CPU per chunk", "us", None),
    ("added per chunk, p50", "ms", None),
    ("added per chunk, p99", "ms", ADDED_P99_MS),
)


def measure(*, short: bool) -> list[Row]:
    raise_descriptor_limit()
    rows: list[Row] = []
    for crowd in SHORT if short else FULL:
        with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
            ways = open_ways(stack, Path(name))  # new processes: memory is counted from nothing
            seen = {way.name: uvloop.run(_hold(way, crowd)) for way in ways.all()}
        rows += crowd_rows(ways, seen, crowd)
    return rows


def crowd_rows(ways: Ways, seen: dict[str, Seen], crowd: Crowd) -> list[Row]:
    ours, direct = seen[ways.gateway.name], seen[ways.direct.name]
    reference = ways.nginx.name if ways.nginx else None
    nginx = seen[reference].less(direct) if reference else None
    theirs = [None] * 4 if nginx is None else nginx.figures()
    what = f"{crowd.streams:,} streams at {crowd.rate:.0f} chunks/s"
    rows = rows_beside(what, _FIGURES, ours.less(direct).figures(), theirs, reference=reference)
    straight = f"{what}, straight to the engine, chunk p99"
    return [Row(name=straight, unit="ms", value=direct.p99), *rows]


def raise_descriptor_limit() -> None:
    """The load generator and what it starts may have all descriptors that the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _hold(way: Way, crowd: Crowd) -> Seen:
    payload = way.chat(model=crowd.model, tokens=_ENDLESS, stream=True)
    delays = Delays()
    delays.is_counting = False
    before = pss_bytes(way.pids)
    async with held_streams(
        way.address,
        payload,
        streams=crowd.streams,
        delays=delays,
        over_seconds=crowd.ramp_seconds,
    ) as answers:
        await asyncio.sleep(_SETTLE_SECONDS)
        delays.is_counting = True
        spent = cpu_seconds(way.pids)
        await asyncio.sleep(crowd.seconds)
        spent = cpu_seconds(way.pids) - spent
        delays.is_counting = False
        kilobytes = (pss_bytes(way.pids) - before) / crowd.streams / 1000
        ended = [answer.result() for answer in answers if answer.done()]
    if ended:
        raise Unusable(f"{way.name}: {len(ended)} streams ended, the first {ended[0].failure!r}")
    chunks = len(delays.values)
    wanted = crowd.streams * crowd.rate * crowd.seconds
    if chunks < 0.9 * wanted:
        raise Unusable(f"{way.name}: {chunks} of {wanted:.0f} chunks came in time")
    return Seen(delays.quantile(0.5), delays.quantile(0.99), kilobytes, spent / chunks * 1e6)
