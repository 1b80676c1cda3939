"""What the gateway costs, beside nginx as a plain proxy: ``make bench-gateway``.

Both stand in front of the same engine simulator and get the same load from the same generator in
one run, turn by turn. The gateway runs with everything on: keys from PostgreSQL, admission in
Valkey, forced usage, the journal. The median of the repeats counts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from . import cost, latency
from .cost import Cost, Load
from .latency import Latency, Pressure
from .results import Row, report, this_machine
from .ways import Ways, open_ways

PLAIN_TARGET = 4.0
CHUNK_TARGET = 1.5
ADDED_P50_MS = 1.0
ADDED_P99_MS = 5.0


@dataclass(frozen=True, slots=True)
class Effort:
    name: str
    repeats: int
    load: Load
    pressure: Pressure


FULL = Effort("gateway", 5, Load(4000, 32, 64, 256), Pressure(rate=500, stream_rate=100, seconds=5))
SHORT = Effort(
    "gateway-short", 2, Load(500, 16, 16, 64), Pressure(rate=100, stream_rate=20, seconds=2)
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less of everything, for CI")
    effort = SHORT if parser.parse_args(argv).short else FULL
    machine = this_machine()
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        ways = open_ways(stack, Path(name))
        costs, latencies = uvloop.run(_measure(ways, effort))
    print(f"\n{machine} before the run; medians of {effort.repeats} turns\n")
    rows = [*cost_rows(ways, costs), *latency_rows(ways, latencies, effort.pressure)]
    print(f"\nAlso in {report(effort.name, rows, machine=machine)}")


async def _measure(ways: Ways, effort: Effort) -> tuple[dict[str, Cost], dict[str, Latency]]:
    paid = [way for way in ways.all() if way is not ways.direct]
    costs = await cost.measure(paid, effort.load, repeats=effort.repeats)
    return costs, await latency.measure(ways.all(), effort.pressure, repeats=effort.repeats)


def cost_rows(ways: Ways, costs: dict[str, Cost]) -> list[Row]:
    ours = costs[ways.gateway.name]
    name, theirs = _reference(ways, costs)
    return [
        Row(
            name="gateway CPU per plain request",
            unit="us",
            value=ours.plain_us,
            reference=name,
            reference_value=None if theirs is None else theirs.plain_us,
            target=PLAIN_TARGET,
        ),
        Row(
            name="gateway CPU per streamed chunk",
            unit="us",
            value=ours.chunk_us,
            reference=name,
            reference_value=None if theirs is None else theirs.chunk_us,
            target=CHUNK_TARGET,
        ),
    ]


def latency_rows(ways: Ways, found: dict[str, Latency], pressure: Pressure) -> list[Row]:
    """What is added to going straight to the engine; for nginx too, without a target.

    The way straight comes first: where it is slow, the machine had other things to do.
    """
    direct = found[ways.direct.name]
    straight = _figures("straight to the engine", direct, pressure)
    rows = [Row(name=what, unit="ms", value=value) for what, value, _ in straight]
    added = [(ways.gateway.name, found[ways.gateway.name].minus(direct), True)]
    if ways.nginx is not None:
        added.append((ways.nginx.name, found[ways.nginx.name].minus(direct), False))
    for name, one, judged in added:
        rows += [
            Row(name=what, unit="ms", value=value, target=target if judged else None)
            for what, value, target in _figures(f"added by {name}", one, pressure)
        ]
    return rows


def _figures(
    what: str, found: Latency, pressure: Pressure
) -> list[tuple[str, float, float | None]]:
    """Name, value and target of what is added, for one way."""
    plain = f"{what}, {pressure.rate:.0f} requests/s"
    first = f"{what}, first byte, {pressure.stream_rate:.0f} streams/s"
    return [
        (f"{plain}, p50", found.p50, ADDED_P50_MS),
        (f"{plain}, p99", found.p99, ADDED_P99_MS),
        (f"{first}, p50", found.first_p50, None),
        (f"{first}, p99", found.first_p99, ADDED_P99_MS),
    ]


def _reference(ways: Ways, costs: dict[str, Cost]) -> tuple[str, Cost | None]:
    if ways.nginx is None:
        return "nginx (not installed)", None
    return ways.nginx.name, costs[ways.nginx.name]


if __name__ == "__main__":
    main()
