"""Journals written by the release before: real bytes of it, in ``written/``, read by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kernel.usage import SCHEMA_VERSION, Completeness
from serving.journal.record import FORMAT_VERSION, READABLE_VERSIONS, RecordKind, scan
from serving.journal.recovery import UpgradeNeeded, fact_of
from serving.journal.replay import replay
from serving.journal.rows import batch_rows
from serving.journal.segment import is_closed
from serving.journal.shipping import Shipper
from serving.journal.tests.facts import draft, settles_of
from serving.journal.tests.stores import MemoryStore
from serving.journal.writer import JournalWriter

WRITTEN = Path(__file__).parent / "written"
SEGMENT = WRITTEN / "format1_schema1.seg"
TOLD = json.loads((WRITTEN / "format1_schema1.json").read_text())


@pytest.fixture
def old_journal(tmp_path: Path) -> Path:
    """The journal of a gateway of the release before, dead with two calls open."""
    folder = tmp_path / "old_00000000_01KSV1WRITER00000000000000"
    folder.mkdir()
    shutil.copy(SEGMENT, folder / "0000000001.seg")
    return folder


def test_facts_of_the_schema_before_keep_their_hash_and_cost_nothing() -> None:
    records = scan(SEGMENT.read_bytes()).records
    settled = [fact_of(r) for r in records if r.kind == RecordKind.SETTLE]
    assert {fact.event_id: fact.fact_hash() for fact in settled} == TOLD["settled"]
    assert {record.version for record in records} <= READABLE_VERSIONS
    assert {fact.schema_version for fact in settled} == {SCHEMA_VERSION - 1}
    assert [(dict(fact.rates), fact.cost_nano()) for fact in settled] == [({}, 0)] * 3


def test_a_journal_of_the_release_before_is_shipped_closed_and_replayed(old_journal: Path) -> None:
    store = MemoryStore()
    Shipper(old_journal.parent, store).ship()
    hashes = {row.event_id: row.fact_hash for row in store.rows.values()}
    assert hashes.items() >= TOLD["settled"].items()
    assert hashes.keys() == TOLD["settled"].keys() | TOLD["open"].keys()
    assert is_closed(old_journal)
    assert store.quarantine == {}
    closed = [fact for fact in settles_of(old_journal) if fact.event_id in TOLD["open"]]
    assert {fact.event_id: fact.quantities["output"] for fact in closed} == TOLD["open"]
    assert {fact.completeness for fact in closed} == {Completeness.ESTIMATED, Completeness.UNKNOWN}
    again = replay(old_journal.parent, store)
    assert (again.new, again.known, again.quarantined) == (0, 5, 0)


def test_what_is_written_now_is_read_by_the_release_after() -> None:
    """Readers know N and N - 1: what this release writes is N."""
    assert FORMAT_VERSION in READABLE_VERSIONS
    assert FORMAT_VERSION - 1 in READABLE_VERSIONS
    assert FORMAT_VERSION + 1 not in READABLE_VERSIONS


def test_a_writer_of_the_release_after_is_held_while_others_are_shipped(old_journal: Path) -> None:
    later = JournalWriter.open(old_journal.parent, node="later")
    intent = draft(schema_version=SCHEMA_VERSION + 1)
    later.intent(intent)
    later.settle(intent)
    later.close()
    store = MemoryStore()
    shipper = Shipper(old_journal.parent, store)
    shipper.ship()
    assert store.rows.keys()
    assert intent.event_id not in store.event_ids
    assert list(shipper.health.held_writers) == [later.writer_id]
    with pytest.raises(UpgradeNeeded):
        batch_rows(scan(_only_segment(old_journal.parent / later.writer_id)).records)


def _only_segment(folder: Path) -> bytes:
    (segment,) = folder.glob("*.seg")
    return segment.read_bytes()
