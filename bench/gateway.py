"""What the gateway costs, beside nginx as a plain proxy and LiteLLM: ``make bench-gateway``.

All stand in front of the same engine simulator and get the same load from the same generator in
one run, turn by turn. The gateway runs with everything on: keys from PostgreSQL, admission in
Valkey, forced usage, the journal. The median of the repeats counts.
"""

from __future__ import annotations

import argparse
import sys
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
LITELLM_TARGET = 100.0
CHUNK_TARGET = 1.5
ADDED_P50_MS = 1.0
ADDED_P99_MS = 5.0


@dataclass(frozen=True, slots=True)
class Effort:
    repeats: int
    load: Load
    pressure: Pressure
    with_litellm: bool


FULL = Effort(
    5,
    Load(4000, 32, 64, 256),
    Pressure(rate=500, stream_rate=100, seconds=5),
    with_litellm=True,
)
SHORT = Effort(
    2,
    Load(500, 16, 16, 64),
    Pressure(rate=100, stream_rate=20, seconds=2),
    with_litellm=False,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less of everything, for CI")
    short = parser.parse_args(argv).short
    machine = this_machine()
    rows = measure(short=short)
    print(f"\n{machine} before the run\n")
    print(f"\nAlso in {report('gateway-short' if short else 'gateway', rows, machine=machine)}")


def measure(*, short: bool) -> list[Row]:
    effort = SHORT if short else FULL
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        ways = open_ways(stack, Path(name), with_litellm=effort.with_litellm)
        if not effort.with_litellm:
            print("LiteLLM is left out of the short form.", file=sys.stderr)
        costs, latencies = uvloop.run(_measure(ways, effort))
    return [*cost_rows(ways, costs), *latency_rows(ways, latencies, effort.pressure)]


async def _measure(ways: Ways, effort: Effort) -> tuple[dict[str, Cost], dict[str, Latency]]:
    costs = await cost.measure(ways.paid(), effort.load, repeats=effort.repeats)
    return costs, await latency.measure(ways.all(), effort.pressure, repeats=effort.repeats)


def cost_rows(ways: Ways, costs: dict[str, Cost]) -> list[Row]:
    ours = costs[ways.gateway.name]
    nginx = costs[ways.nginx.name] if ways.nginx else None
    litellm = costs[ways.litellm.name] if ways.litellm else None
    name = ways.nginx.name if ways.nginx else "nginx (not installed)"
    rows = [
        Row(
            name="gateway CPU per plain request",
            unit="us",
            value=ours.plain_us,
            reference=name,
            reference_value=nginx.plain_us if nginx else None,
            litellm=litellm.plain_us if litellm else None,
            target=PLAIN_TARGET,
        ),
        Row(
            name="gateway CPU per streamed chunk",
            unit="us",
            value=ours.chunk_us,
            reference=name,
            reference_value=nginx.chunk_us if nginx else None,
            litellm=litellm.chunk_us if litellm else None,
            target=CHUNK_TARGET,
        ),
    ]
    if litellm:
        rows.append(
            Row(
                name="LiteLLM's CPU per plain request in ours",
                unit="x",
                value=litellm.plain_us / ours.plain_us,
                target=LITELLM_TARGET,
                is_floor=True,
            )
        )
    return rows


def latency_rows(ways: Ways, found: dict[str, Latency], pressure: Pressure) -> list[Row]:
    """What is added to going straight to the engine; what nginx adds stands beside it.

    The way straight comes first: where it is slow, the machine had other things to do.
    """
    direct = found[ways.direct.name]
    straight = _figures("straight to the engine", direct, pressure)
    rows = [Row(name=what, unit="ms", value=value) for what, value, _ in straight]
    ours = _figures("added by the gateway", found[ways.gateway.name].minus(direct), pressure)
    theirs: list[float] = []
    if ways.nginx is not None:
        added = _figures("", found[ways.nginx.name].minus(direct), pressure)
        theirs = [value for _, value, _ in added]
    return rows + [
        Row(
            name=what,
            unit="ms",
            value=value,
            reference=ways.nginx.name if ways.nginx else None,
            reference_value=theirs[index] if theirs else None,
            target=target,
            judges_value=True,
        )
        for index, (what, value, target) in enumerate(ours)
    ]


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


if __name__ == "__main__":
    main()
