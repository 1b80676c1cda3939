"""What a way adds to the time of an answer, at a rate that does not depend on how fast answers
come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from .cost import Unusable
from .load.runs import Run, fixed_rate
from .ways import FAST, Way

PLAIN_TOKENS = 8
STREAM_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Pressure:
    rate: float  # plain requests per second
    stream_rate: float  # streams begun per second
    seconds: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from when a request was due: to the end of a plain answer, to a stream's first
    byte.
    """

    p50: float
    p99: float
    first_p50: float
    first_p99: float

    def minus(self, other: Latency) -> Latency:
        return Latency(
            self.p50 - other.p50,
            self.p99 - other.p99,
            self.first_p50 - other.first_p50,
            self.first_p99 - other.first_p99,
        )


async def measure(ways: Sequence[Way], pressure: Pressure, *, repeats: int) -> dict[str, Latency]:
    """The median of the repeats, for each way; they take turns."""
    found: dict[str, list[Latency]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            found[way.name].append(await _one(way, pressure))
    return {name: _median(each) for name, each in found.items()}


async def _one(way: Way, pressure: Pressure) -> Latency:
    plain = await _run(way, pressure.rate, pressure.seconds, stream=False)
    streams = await _run(way, pressure.stream_rate, pressure.seconds, stream=True)
    whole = sorted(reply.seconds * 1000 for reply in plain.replies)
    first = sorted(reply.first_seconds * 1000 for reply in streams.replies)
    return Latency(median(whole), _p99(whole), median(first), _p99(first))


async def _run(way: Way, rate: float, seconds: float, *, stream: bool) -> Run:
    tokens = STREAM_TOKENS if stream else PLAIN_TOKENS
    payload = way.chat(model=FAST, tokens=tokens, stream=stream)
    run = await fixed_rate(way.address, payload, rate=rate, seconds=seconds)
    if run.failures:
        first = run.failures[0]
        raise Unusable(
            f"{way.name} at {rate:.0f} a second: {len(run.failures)} of {len(run.replies)} "
            f"requests failed, the first with status {first.status} {first.failure}"
        )
    return run


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[98]


def _median(each: list[Latency]) -> Latency:
    return Latency(
        median(one.p50 for one in each),
        median(one.p99 for one in each),
        median(one.first_p50 for one in each),
        median(one.first_p99 for one in each),
    )
