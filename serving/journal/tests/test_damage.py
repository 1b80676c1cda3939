"""Journals damaged by hand, at every place: what is intact is never lost, nothing is ever made up."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel.usage import UsageFact
from serving.journal.record import (
    HEADER_BYTES,
    Record,
    RecordKind,
    decode_checkpoint,
    decode_fact,
    scan,
)
from serving.journal.segment import segment_list
from serving.journal.shipping import Shipper
from serving.journal.tests.facts import draft, folder_of, settled, write_settled
from serving.journal.tests.stores import MemoryStore
from serving.journal.writer import JournalWriter, Limits

LIMITS = Limits(segment_bytes=64 * 1024, free_bytes=0)
SECTOR = 512


@dataclass(frozen=True)
class Journal:
    """A dead writer's only segment: answers that were settled, and one cut after a checkpoint."""

    data: bytes
    facts: dict[str, UsageFact]
    records: tuple[Record, ...]

    def spared(self, start: int, end: int) -> list[Record]:
        """Records that the damaged bytes do not touch."""
        return [r for r in self.records if r.end <= start or r.start >= end]


@pytest.fixture(scope="module")
def in_memory() -> Iterator[Path]:
    """Thousands of journals are made and synced: not on a disk."""
    shared_memory = Path("/dev/shm")
    folder = shared_memory if shared_memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tessera-damage-", dir=folder) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def journal(in_memory: Path) -> Journal:
    writer = JournalWriter.open(in_memory, node="n", limits=LIMITS)
    facts = write_settled(writer, 2)
    cut = draft()
    writer.intent(cut)
    facts += write_settled(writer, 2)
    writer.checkpoint(cut.event_id, {"output": 7})
    facts += write_settled(writer, 2)
    writer.close()
    data = segment_list(folder_of(in_memory, writer))[0].path.read_bytes()
    known = {fact.event_id: fact for fact in (*facts, settled(cut))}
    return Journal(data, known, scan(data).records)


def test_a_flipped_byte_at_any_place_costs_its_own_record_and_no_other(
    in_memory: Path, journal: Journal
) -> None:
    """Every byte of one record's frame and every few of the payloads: each is a journal shipped."""
    dice = random.Random(1)
    for place in _places(journal):
        noise = bytes([journal.data[place] ^ dice.randrange(1, 256)])
        _check(in_memory, journal, place, noise)


def test_noise_of_any_length_at_any_place_costs_what_it_covers(
    in_memory: Path, journal: Journal
) -> None:
    dice = random.Random(1)
    for _ in range(100):
        start = dice.randrange(len(journal.data))
        length = dice.choice((2, 7, 24, 300, 900, 3000))
        _check(in_memory, journal, start, dice.randbytes(length))


def test_a_lost_sector_costs_what_it_covers(in_memory: Path, journal: Journal) -> None:
    """A disk gives back zeros, or another sector's bytes, where one was never written."""
    for start in range(0, len(journal.data), SECTOR):
        for other in (bytes(SECTOR), journal.data[:SECTOR]):
            _check(in_memory, journal, start, other)


def _places(journal: Journal) -> Iterator[int]:
    third = journal.records[2]
    yield from range(third.start, third.start + HEADER_BYTES)
    for record in journal.records:
        yield from (record.start, record.start + HEADER_BYTES - 1, record.end - 1)
    yield from range(0, len(journal.data), 97)


def _check(home: Path, journal: Journal, start: int, noise: bytes) -> None:
    """Ship a damaged copy, and hold what came of it against what was spared."""
    noise = noise[: len(journal.data) - start]
    end = start + len(noise)
    damaged = journal.data[:start] + noise + journal.data[end:]
    with tempfile.TemporaryDirectory(dir=home) as name:
        folder = Path(name) / "writer"
        folder.mkdir()
        (folder / "0000000001.seg").write_bytes(damaged)
        store = MemoryStore()
        shipper = Shipper(Path(name), store)
        shipper.ship()
        kept = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _ASIDE)
    where = f"{len(noise)} bytes at {start}"
    assert store.quarantine == {}, where
    assert kept == shipper.health.damaged_bytes + shipper.health.torn_bytes, where
    booked = {row.event_id: row for row in store.rows.values()}
    assert booked.keys() <= journal.facts.keys(), f"nothing is made up: {where}"
    settles, known, counted = _of(journal.spared(start, end))
    assert booked.keys() >= known, f"whatever is spared of a call books it: {where}"
    for event_id in settles:
        assert booked[event_id].fact_hash == journal.facts[event_id].fact_hash(), where
    for event_id in known - settles:
        completeness = booked[event_id].columns[_COMPLETENESS]
        assert completeness == ("estimated" if event_id in counted else "unknown"), where


_ASIDE = frozenset({".torn", ".damaged"})
_COMPLETENESS = 13


def _of(records: list[Record]) -> tuple[set[str], set[str], set[str]]:
    """Events with a settle, with an intent or a settle, and with a count."""
    ids: dict[int, set[str]] = {kind: set() for kind in RecordKind}
    for record in records:
        if record.kind == RecordKind.CHECKPOINT:
            ids[record.kind].add(decode_checkpoint(record.payload)[0])
        else:
            ids[record.kind].add(decode_fact(record.payload).event_id)
    settles, intents = ids[RecordKind.SETTLE], ids[RecordKind.INTENT]
    return settles, settles | intents, ids[RecordKind.CHECKPOINT]
