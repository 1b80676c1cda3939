"""What ``strict`` costs: the same gateway with each of the journal's sync modes, in one run.

``python -m bench strict``: two gateways on one engine simulator, one per mode, get the same plain
requests at the same rate, in turns. A raw ``fdatasync`` of one record on the same disk is the
reference: strict cannot be faster than that.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import uvloop

from serving.journal.writer import SyncMode

from . import latency
from .backing import Backing, backing
from .engines import adapter_write, simulator
from .gateways import gateways, publish
from .latency import Latency, Pressure
from .results import Row
from .ways import FAST, SLOTS, Way

RATES = (20.0, 100.0, 500.0)
RECORD = bytes(700)
REFERENCE = "one fdatasync of one record, alone"


def measure(*, short: bool) -> list[Row]:
    rates, seconds, repeats = (RATES[:1], 2.0, 1) if short else (RATES, 10.0, 3)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        disk = raw_syncs(folder / "raw", count=100 if short else 1000)
        ways = open_ways(stack, folder)
        for rate in rates:
            pressure = Pressure(rate=rate, stream_rate=rate / 5, seconds=seconds)
            found = uvloop.run(latency.measure(ways, pressure, repeats=repeats))
            rows += added_rows(found, disk, rate)
    return rows


def open_ways(stack: ExitStack, folder: Path) -> list[Way]:
    """One gateway process per mode, on the same servers and engine."""
    back = stack.enter_context(backing(folder))
    key = back.secret("TESSERA_ENGINE_KEY")
    engine = stack.enter_context(simulator(folder / "engine", replica="r1", engine_key=key))
    engine.load(FAST, adapter_write(folder / "adapter", seed=0))
    publish(back, [engine], models=[FAST], slots=SLOTS)
    ways = []
    for mode in SyncMode:
        one = _in_mode(back, mode)
        made = stack.enter_context(gateways(one, processes=1))
        ways.append(Way(mode.value, made.address, back.tenant.key, made.pids))
    return ways


def _in_mode(back: Backing, mode: SyncMode) -> Backing:
    """The same servers and secrets, another home."""
    home, folder = back.folder / f"home-{mode}", back.folder / mode
    home.mkdir(mode=0o700)
    folder.mkdir()
    changes = {"TESSERA_JOURNAL_SYNC": mode.value, "TESSERA_HOME": str(home)}
    return replace(back, folder=folder, environment=back.environment | changes)


def raw_syncs(path: Path, *, count: int) -> tuple[float, float]:
    """p50 and p99 of writing one record into reserved space and waiting for the disk, in ms."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(descriptor, 0, count * len(RECORD))
    times = []
    for number in range(count):
        started = time.perf_counter()
        os.pwrite(descriptor, RECORD, number * len(RECORD))
        os.fdatasync(descriptor)
        times.append((time.perf_counter() - started) * 1000)
    os.close(descriptor)
    return median(times), quantiles(times, n=100)[98]


def added_rows(
    found: dict[str, Latency], disk: tuple[float, float], rate: float
) -> tuple[Row, Row]:
    interval, strict = found[SyncMode.INTERVAL], found[SyncMode.STRICT]
    added = strict.minus(interval)
    figures = (("p50", added.p50, disk[0]), ("p99", added.p99, disk[1]))
    fifty, ninety_nine = (
        Row(
            name=f"added by strict at {rate:.0f} plain requests/s, {name}",
            unit="ms",
            value=value,
            reference=REFERENCE,
            reference_value=alone,
        )
        for name, value, alone in figures
    )
    return fifty, ninety_nine
