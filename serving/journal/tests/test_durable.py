"""``strict`` mode: what is on the disk when ``durable`` returns. A power cut is played by looking at
what each sync had before it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.journal import writer as writer_module
from serving.journal.record import RecordKind, scan
from serving.journal.recovery import fact_of
from serving.journal.tests.facts import SMALL, folder_of, settles_of, write_settled
from serving.journal.writer import JournalFull, JournalWriter, Limits, SyncMode

STRICT = Limits(segment_bytes=8192, free_bytes=0, sync=SyncMode.STRICT)


class Disk:
    """Every sync, with what its file held; it may be made slow, or broken."""

    def __init__(self) -> None:
        self.syncs = 0
        self.synced: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.is_broken = False

    def fdatasync(self, descriptor: int) -> None:
        self.syncs += 1
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        held = scan(path.read_bytes()).records
        self.gate.wait(5)
        if self.is_broken:
            raise OSError(5, "Input/output error")
        self.synced |= {fact_of(r).event_id for r in held if r.kind == RecordKind.SETTLE}


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    monkeypatch.setattr(os, "fdatasync", made.fdatasync)
    yield made
    made.gate.set()


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[JournalWriter]:
    made = JournalWriter.open(tmp_path, node="n", limits=STRICT)
    yield made
    made.close()


async def test_what_was_settled_is_on_the_disk(strict: JournalWriter, disk: Disk) -> None:
    for _ in range(3):
        fact = write_settled(strict)[0]
        await strict.durable()
        assert fact.event_id in disk.synced


async def test_all_who_end_together_share_one_sync(strict: JournalWriter, disk: Disk) -> None:
    """Those who come while one runs are served by the next, which begins after they came."""
    disk.gate.clear()
    first = write_settled(strict)[0]
    waiting = [asyncio.create_task(strict.durable())]
    while not disk.syncs:  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0)
    later = write_settled(strict, 3)  # they fit into the segment
    waiting += [asyncio.create_task(strict.durable()) for _ in later]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    disk.gate.set()
    await waiting[0]
    assert first.event_id in disk.synced
    await asyncio.gather(*waiting)
    assert {fact.event_id for fact in later} <= disk.synced
    assert disk.syncs == 2


async def test_a_rotation_beside_a_sync_leaves_nothing_behind(
    strict: JournalWriter, disk: Disk
) -> None:
    """Some forty segments, written while syncs run; each settle is durable when it says so."""

    async def answer() -> None:
        for _ in range(25):
            fact = write_settled(strict)[0]
            await strict.durable()
            assert fact.event_id in disk.synced

    await asyncio.gather(*(answer() for _ in range(8)))
    assert disk.syncs < 200


async def test_who_left_hinders_nobody(strict: JournalWriter, disk: Disk) -> None:
    disk.gate.clear()
    write_settled(strict)
    gone, there = (asyncio.create_task(strict.durable()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    disk.gate.set()
    await there
    assert gone.cancelled()


async def test_a_disk_that_fails_says_so_and_takes_no_further_calls(
    strict: JournalWriter, disk: Disk
) -> None:
    """F27: not acknowledged."""
    write_settled(strict)
    disk.is_broken = True
    with pytest.raises(JournalFull):
        await strict.durable()
    with pytest.raises(JournalFull):
        write_settled(strict)
    disk.is_broken = False


async def test_interval_mode_waits_for_nothing(tmp_path: Path, disk: Disk) -> None:
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    write_settled(writer)
    await writer.durable()
    assert disk.syncs == 0
    writer.close()
    assert len(settles_of(folder_of(tmp_path, writer))) == 1
    assert writer_module.DEFAULT_LIMITS.sync is SyncMode.INTERVAL
