"""The highest rate of plain requests that is held, with everything on these cores.

``python -m bench rate``: two gateway processes, then nginx with one worker, in front of the same
engine simulator, asked at rising rates. A rate is held when every request is answered and the p99
that is added to going straight to the engine stays within 20 ms, counted from the instant each
request was due. Engine, load generator, PostgreSQL and Valkey run on the same cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles

import uvloop

from .load.runs import fixed_rate
from .results import Row
from .streams import raise_descriptor_limit
from .ways import FAST, Way, Ways, open_ways

TARGET = 100_000 / 60  # requests a second
ADDED_P99_MS = 20.0
PROCESSES = 2
PLAIN_TOKENS = 32
RATES = (500.0, 1000.0, TARGET, 2000.0, 2500.0, 3000.0, 4000.0, 5000.0)
_TRIES = 3  # a rate that is missed once may have met somebody else's work


def measure(*, short: bool) -> list[Row]:
    raise_descriptor_limit()
    rates, seconds = (RATES[:1], 2.0) if short else (RATES, 6.0)
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        ways = open_ways(stack, Path(name), processes=PROCESSES)
        return uvloop.run(_measure(ways, rates, seconds))


async def _measure(ways: Ways, rates: Sequence[float], seconds: float) -> list[Row]:
    ours, added = await highest(ways.gateway, ways.direct, rates, seconds)
    theirs, reference = None, None
    if ways.nginx is not None:
        reference = ways.nginx.name
        theirs, _ = await highest(ways.nginx, ways.direct, rates, seconds)
    return [
        Row(
            name=f"highest rate held, {PROCESSES} gateway processes, at most {rates[-1]:.0f} tried",
            unit="requests/s",
            value=ours,
            reference=reference,
            reference_value=theirs,
            target=TARGET if rates[-1] >= TARGET else None,
            judges_value=True,
            is_floor=True,
        ),
        Row(name="p99 added at that rate", unit="ms", value=added),
    ]


async def highest(
    way: Way, direct: Way, rates: Sequence[float], seconds: float
) -> tuple[float, float]:
    """The last of the rates before the first that is not held, and the p99 added there."""
    best = (0.0, 0.0)
    for rate in rates:
        added = await _added(way, direct, rate, seconds)
        if added is None:
            break
        best = (rate, added)
    return best


async def _added(way: Way, direct: Way, rate: float, seconds: float) -> float | None:
    """Milliseconds of p99 added; nothing where the rate is not held."""
    for _ in range(_TRIES):
        straight = await _p99(direct, rate, seconds)
        through = await _p99(way, rate, seconds)
        if straight is None or through is None or straight > ADDED_P99_MS:
            continue  # beyond what engine and load generator can do here
        if through - straight <= ADDED_P99_MS:
            return through - straight
    return None


async def _p99(way: Way, rate: float, seconds: float) -> float | None:
    payload = way.chat(model=FAST, tokens=PLAIN_TOKENS, stream=False)
    run = await fixed_rate(way.address, payload, rate=rate, seconds=seconds)
    if run.failures:
        return None
    return quantiles([reply.seconds * 1000 for reply in run.replies], n=100)[98]
