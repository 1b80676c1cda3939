"""What a gateway's memory does over many requests: ``python -m bench.memory`` for the long form.

One process answers plain requests and streams that their clients hang up on, in rounds; its private
memory is read after each. The first third of the rounds warms up (caches fill, the allocator takes
its arenas) and is left out. Growth is the slope of a straight line through the rest, times what
1,000,000 requests and 100,000 hung-up streams are in rounds, over the memory where it begins. The
long form makes all of them and needs no slope to be believed.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

import uvloop

from .cost import Unusable
from .load.client import Client, connect
from .load.runs import closed_loop
from .processes import private_bytes
from .results import Row, report, this_machine
from .ways import FAST, PACED, Way, open_ways

REQUESTS, HUNG_UP = 1_000_000, 100_000
TARGET_PERCENT = 2.0
_WARM_SHARE = 1 / 3
_CONNECTIONS = 32
_SETTLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Effort:
    rounds: int
    requests: int  # per round
    hung_up: int  # per round


FULL = Effort(rounds=30, requests=5_000, hung_up=500)
SHORT = Effort(rounds=6, requests=300, hung_up=30)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--hung-up", type=int, default=HUNG_UP)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args(argv)
    machine = this_machine()
    effort = Effort(given.rounds, given.requests // given.rounds, given.hung_up // given.rounds)
    report("memory", run(effort), machine=machine)


def measure(*, short: bool) -> list[Row]:
    return run(SHORT if short else FULL)


def run(effort: Effort) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        ways = open_ways(stack, Path(name))
        sizes = uvloop.run(_rounds(ways.gateway, effort))
    done = effort.rounds * effort.requests
    hung_up = effort.rounds * effort.hung_up
    what = f"memory of a gateway process after {done:,} requests and {hung_up:,} hung up"
    rows = [Row(name=what, unit="MB", value=sizes[-1] / 1e6)]
    if done < REQUESTS / 10:  # too short to be multiplied: it sees the allocator breathe
        return rows
    growth = Row(
        name="growth over 1,000,000 requests and 100,000 hung up, by the slope",
        unit="%",
        value=growth_percent(sizes, effort),
        target=TARGET_PERCENT,
    )
    return [*rows, growth]


def growth_percent(sizes: Sequence[int], effort: Effort) -> float:
    """Of the memory after warming up; by the scarcer of the two kinds of work done."""
    warm = list(sizes[int(len(sizes) * _WARM_SHARE) :])
    slope, start = linear_regression(range(len(warm)), warm)
    rounds = max(REQUESTS / effort.requests, HUNG_UP / effort.hung_up)
    return 100 * slope * rounds / start


async def _rounds(way: Way, effort: Effort) -> list[int]:
    plain = way.chat(model=FAST, tokens=32, stream=False)
    stream = way.chat(model=PACED, tokens=256, stream=True)
    sizes = []
    for number in range(effort.rounds):
        run = await closed_loop(
            way.address, plain, connections=_CONNECTIONS, requests=effort.requests
        )
        if run.failures:
            raise Unusable(f"{len(run.failures)} requests failed in round {number}")
        for first in range(0, effort.hung_up, _CONNECTIONS):
            count = min(_CONNECTIONS, effort.hung_up - first)
            await asyncio.gather(*(_hang_up(way, stream) for _ in range(count)))
        await asyncio.sleep(_SETTLE_SECONDS)
        sizes.append(private_bytes(way.pids))
        print(f"    round {number + 1}: {sizes[-1] / 1e6:.2f} MB", flush=True)
    return sizes


async def _hang_up(way: Way, payload: bytes) -> None:
    """Leave after the first chunk."""
    client: Client = await connect(way.address)
    reply = client.ask(payload)
    while not reply.done() and not (client.coming and client.coming.first_at):  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    client.leave()
    await reply


if __name__ == "__main__":
    main()
