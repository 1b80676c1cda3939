from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path

import pytest

from kernel.clock import micros, wall
from kernel.usage import SCHEMA_VERSION, UsageFact
from serving.journal.health import health_read, metrics
from serving.journal.reading import CHUNK_BYTES
from serving.journal.record import RecordKind, encode_fact, frame, scan
from serving.journal.retention import expire
from serving.journal.segment import is_closed, segment_list, unshipped_bytes, writer_folders
from serving.journal.shipping import Shipper
from serving.journal.store import StoreUnavailable
from serving.journal.tests.facts import (
    SMALL,
    draft,
    folder_of,
    settled,
    write_settled,
)
from serving.journal.tests.stores import MemoryStore, unavailable
from serving.journal.writer import JournalWriter, Limits


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = float(int(wall()))

    def __call__(self) -> float:
        return self.now


def ids(facts: list[UsageFact]) -> list[str]:
    return sorted(fact.event_id for fact in facts)


def test_a_living_writers_facts_are_shipped_as_they_come(tmp_path: Path) -> None:
    store = MemoryStore()
    shipper = Shipper(tmp_path, store)
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    facts = []
    for _ in range(40):
        writer.intent(draft())  # stays open
        facts += write_settled(writer, 1)
        shipper.ship()
        assert store.event_ids == ids(facts)
    assert shipper.health.living_writers == 1
    assert not is_closed(folder_of(tmp_path, writer))
    writer.close()


def test_shipped_segments_wait_to_be_replayed_or_removed(tmp_path: Path) -> None:
    clock = Hand()
    store = MemoryStore()
    shipper = Shipper(tmp_path, store, clock=clock)
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    write_settled(writer, 40)
    shipper.ship()
    folder = folder_of(tmp_path, writer)
    assert [s.is_shipped for s in segment_list(folder)] == [True] * 7 + [False]
    writer.close()
    shipper.ship()
    assert all(segment.is_shipped for segment in segment_list(folder))
    assert unshipped_bytes(tmp_path) == 0
    clock.now += 72 * 3600 - 30
    shipper.expire()
    assert len(segment_list(folder)) == 8
    clock.now += 60
    shipper.expire()
    assert writer_folders(tmp_path) == []
    assert shipper.health.removed_segments == 8


def test_a_dead_writers_journal_is_closed_and_shipped_whole(tmp_path: Path) -> None:
    store = MemoryStore()
    shipper = Shipper(tmp_path, store)
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    counted, silent = draft(), draft()
    writer.intent(counted)
    writer.intent(silent)
    writer.checkpoint(counted.event_id, {"input": 7, "output": 3})
    facts = write_settled(writer, 20)
    shipper.ship()
    assert store.event_ids == ids(facts), "open calls of a living writer are nobody's business"
    writer.close()
    shipper.ship()
    assert store.event_ids == ids([*facts, counted, silent])
    assert store.closed == {writer.writer_id}
    assert (shipper.health.estimated_facts, shipper.health.unknown_facts) == (1, 1)
    before = dict(store.reached)
    shipper.ship()
    assert store.reached == before


def test_a_second_shipper_starts_where_the_first_one_got(tmp_path: Path) -> None:
    store = MemoryStore()
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    facts = write_settled(writer, 10)
    Shipper(tmp_path, store).ship()
    facts += write_settled(writer, 10)
    second = Shipper(tmp_path, store)
    second.ship()
    assert store.event_ids == ids(facts)
    assert second.health.repeated_facts == 0
    writer.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_database_that_fails_now_and_then_gets_everything_once(
    tmp_path: Path, moment: str
) -> None:
    """``after`` is the commit whose answer was lost."""
    dice = random.Random(moment)
    store = MemoryStore()

    def maybe() -> None:
        if dice.random() < 0.4:
            unavailable()

    setattr(store, moment, maybe)
    shipper = Shipper(tmp_path, store)
    facts = []
    for _ in range(8):
        writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
        for _ in range(10):
            facts += write_settled(writer, 3)
            _try(shipper)
        left_open = draft()
        writer.intent(left_open)
        facts.append(left_open)
        writer.close()
    for _ in range(200):
        _try(shipper)
    assert store.event_ids == ids(facts)
    assert store.quarantine == {}
    assert unshipped_bytes(tmp_path) == 0


def test_while_the_database_is_away_the_dead_are_closed_and_the_backlog_is_told(
    tmp_path: Path,
) -> None:
    clock = Hand()
    store = MemoryStore()
    store.before = unavailable
    shipper = Shipper(tmp_path, store, clock=clock)
    writer = JournalWriter.open(tmp_path, node="n", clock=clock)
    write_settled(writer, 3)
    writer.intent(draft())
    writer.close()
    with pytest.raises(StoreUnavailable):
        shipper.ship()
    assert is_closed(folder_of(tmp_path, writer))
    clock.now += 90
    shipper.heartbeat()
    health = health_read(tmp_path)
    assert health is not None
    assert health.database_error == "the database is away"
    assert health.unshipped_bytes == unshipped_bytes(tmp_path) > 0
    assert health.oldest_unshipped_seconds == 90
    text = metrics(tmp_path, now=clock.now + 5)
    assert "tessera_journal_shipper_database_up 0\n" in text
    assert "tessera_journal_shipper_heartbeat_age_seconds 5.0\n" in text
    assert "tessera_journal_unknown_facts_total 1\n" in text
    store.before = lambda: None
    shipper.ship()
    shipper.heartbeat()
    text = metrics(tmp_path, now=clock.now)
    assert "tessera_journal_shipper_database_up 1\n" in text
    assert "tessera_journal_unshipped_bytes 0\n" in text
    assert "tessera_journal_oldest_unshipped_seconds 0.0\n" in text


def test_what_is_reserved_and_not_written_is_no_backlog(tmp_path: Path) -> None:
    store = MemoryStore()
    shipper = Shipper(tmp_path, store)
    writer = JournalWriter.open(tmp_path, node="n")
    shipper.heartbeat()
    assert shipper.health.unshipped_bytes == 0
    for count in range(1, 30):
        write_settled(writer, count)
        shipper.heartbeat()
        size = writer._segment.used - sum(p.offset for p in shipper._reached.values())
        assert shipper.health.unshipped_bytes == size > 0
        shipper.ship()
        shipper.heartbeat()
        assert shipper.health.unshipped_bytes == 0
    writer.close()


def test_a_node_without_a_shipper_has_no_journal_metrics(tmp_path: Path) -> None:
    assert metrics(tmp_path, now=0.0) == ""


def test_damage_in_the_middle_is_kept_aside_and_counted_once(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    facts = write_settled(writer, 20)
    writer.close()
    folder = folder_of(tmp_path, writer)
    path = segment_list(folder)[0].path
    victim = [r for r in scan(path.read_bytes()).records if r.kind == RecordKind.SETTLE][7]
    damaged = _flip(path, victim.start + 30)
    store = MemoryStore()
    for _ in range(2):
        shipper = Shipper(tmp_path, store)
        shipper.ship()
    kept = [entry for entry in folder.iterdir() if entry.suffix == ".damaged"]
    assert [entry.read_bytes() for entry in kept] == [damaged[victim.start : victim.end]]
    assert store.event_ids == ids(facts), "its intent stood further up, so it is booked from that"
    assert store.rows[_key(store, facts[7].event_id)].columns[13] == "unknown"


def test_damage_longer_than_what_is_read_at_once_is_passed(tmp_path: Path) -> None:
    folder = tmp_path / "writer"
    folder.mkdir()
    facts = [settled(draft()) for _ in range(2)]
    first, last = (frame(RecordKind.SETTLE, encode_fact(f), written_at=1) for f in facts)
    noise = random.Random(1).randbytes(2 * CHUNK_BYTES + 17)
    (folder / "0000000001.seg").write_bytes(first + noise + last)
    store = MemoryStore()
    shipper = Shipper(tmp_path, store)
    shipper.ship()
    assert store.event_ids == ids(facts)
    assert shipper.health.damaged_bytes == len(noise)
    assert [entry.read_bytes() for entry in folder.glob("*.damaged")] == [noise]


def test_a_journal_of_many_chunks_is_read_on_from_record_to_record(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    facts = write_settled(writer, 3000)
    assert sum(s.path.stat().st_size for s in segment_list(folder_of(tmp_path, writer))) > 2
    store = MemoryStore()
    Shipper(tmp_path, store).ship()
    assert store.event_ids == ids(facts)
    writer.close()


def test_a_living_writer_gets_time_before_unreadable_bytes_count_as_damage(tmp_path: Path) -> None:
    steady = Hand()
    writer = JournalWriter.open(tmp_path, node="n")
    facts = write_settled(writer, 3)
    path = segment_list(folder_of(tmp_path, writer))[0].path
    middle = [r for r in scan(path.read_bytes()).records if r.kind == RecordKind.SETTLE][1]
    whole = _flip(path, middle.start + 30, returns_damaged=False)
    store = MemoryStore()
    shipper = Shipper(tmp_path, store, steady=steady)
    shipper.ship()
    steady.now += 4
    shipper.ship()
    assert store.event_ids == ids(facts[:1])
    path.write_bytes(whole)  # it was only being written
    shipper.ship()
    assert store.event_ids == ids(facts)

    facts += write_settled(writer, 3)
    middle = [r for r in scan(path.read_bytes()).records if r.kind == RecordKind.SETTLE][4]
    _flip(path, middle.start + 30)
    shipper.ship()
    steady.now += 6
    shipper.ship()
    assert store.event_ids == ids([*facts[:4], facts[5]])
    assert shipper.health.damaged_bytes == middle.end - middle.start
    writer.close()
    shipper.ship()
    assert store.event_ids == ids(facts), "closing books what the damage held"


def test_records_of_a_later_release_wait_and_hold_up_no_other_writer(tmp_path: Path) -> None:
    newer = JournalWriter.open(tmp_path, node="a-newer")
    older = JournalWriter.open(tmp_path, node="b-older")
    write_settled(newer, 1, schema_version=SCHEMA_VERSION + 1)
    facts = write_settled(older, 2)
    store = MemoryStore()
    shipper = Shipper(tmp_path, store)
    shipper.ship()
    newer.close()
    shipper.ship()
    assert store.event_ids == ids(facts)
    assert list(shipper.health.held_writers) == [newer.writer_id]
    assert "upgrade" in shipper.health.held_writers[newer.writer_id]
    assert not is_closed(folder_of(tmp_path, newer))
    assert not any(s.is_shipped for s in segment_list(folder_of(tmp_path, newer)))
    older.close()


def test_lost_bytes_and_what_is_not_shipped_outlive_their_time(tmp_path: Path) -> None:
    clock = Hand()
    store = MemoryStore()
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    write_settled(writer, 20)
    shipper = Shipper(tmp_path, store, clock=clock)
    store.before = unavailable
    _try(shipper)
    clock.now += 10 * 72 * 3600
    shipper.expire()
    store.before = lambda: None
    shipper.ship()
    assert len(store.rows) == 20
    folder = folder_of(tmp_path, writer)
    (folder / "0000000001-0000000000.damaged").write_bytes(b"?")
    clock.now += 10 * 72 * 3600
    shipper.expire()
    assert len(segment_list(folder)) > 1, "closing may still need them"
    writer.close()
    shipper.ship()
    clock.now += 73 * 3600
    shipper.expire()
    assert segment_list(folder) == []
    assert list(folder.glob("*.damaged")) != []


def test_a_disk_that_runs_full_loses_shipped_segments_first(tmp_path: Path) -> None:
    store = MemoryStore()
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    write_settled(writer, 20)
    Shipper(tmp_path, store).ship()
    assert expire(tmp_path, now=wall()) == 0
    assert expire(tmp_path, now=wall(), free_bytes=2**62) > 0
    assert [s.is_shipped for s in segment_list(folder_of(tmp_path, writer))] == [False]
    writer.close()


def test_the_age_of_the_oldest_record_is_its_writing(tmp_path: Path) -> None:
    clock = Hand()
    store = MemoryStore()
    writer = JournalWriter.open(tmp_path, node="n", clock=clock, limits=Limits(free_bytes=0))
    shipper = Shipper(tmp_path, store, clock=clock)
    write_settled(writer, 1, occurred_at=micros(clock() - 600))
    shipper.ship()
    shipper.heartbeat()
    assert shipper.health.oldest_unshipped_seconds == 0
    store.before = unavailable
    write_settled(writer, 1)
    clock.now += 30
    write_settled(writer, 1)
    _try(shipper)
    shipper.heartbeat()
    assert shipper.health.oldest_unshipped_seconds == 30
    writer.close()


def _try(shipper: Shipper) -> None:
    try:
        shipper.ship()
    except StoreUnavailable:
        return


def _flip(path: Path, offset: int, *, returns_damaged: bool = True) -> bytes:
    """Flip a bit in place; what the file holds now, or held before."""
    data = bytearray(path.read_bytes())
    before = bytes(data)
    data[offset] ^= 4
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data[offset : offset + 1])
    return bytes(data) if returns_damaged else before


def _key(store: MemoryStore, event_id: str) -> tuple[datetime, str]:
    return next(key for key in store.rows if key[1] == event_id)
