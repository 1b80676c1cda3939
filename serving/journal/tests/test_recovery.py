from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.clock import wall
from kernel.usage import SCHEMA_VERSION, Completeness, UsageFact
from serving.journal.record import (
    Record,
    RecordKind,
    encode_checkpoint,
    encode_fact,
    frame,
    scan,
)
from serving.journal.recovery import UpgradeNeeded, close_journal, settle_open
from serving.journal.segment import is_closed, segment_list
from serving.journal.tests.facts import (
    SMALL,
    draft,
    folder_of,
    settled,
    settles_of,
    write_settled,
)
from serving.journal.writer import JournalWriter

INTENT = draft()


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where syncing costs nothing, if there is one: some tests sync thousands of times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def record(kind: int, payload: bytes, version: int = 1) -> Record:
    return Record(version, kind, 0, payload, 0, 0)


def opened(fact: UsageFact = INTENT) -> Record:
    return record(RecordKind.INTENT, encode_fact(fact))


def counted(quantities: dict[str, int], fact: UsageFact = INTENT) -> Record:
    return record(RecordKind.CHECKPOINT, encode_checkpoint(fact.event_id, quantities))


def ended(fact: UsageFact = INTENT) -> Record:
    return record(RecordKind.SETTLE, encode_fact(settled(fact)))


ESTIMATED = replace(
    INTENT,
    completeness=Completeness.ESTIMATED,
    finish_reason="writer_lost",
    quantities={"input": 100, "cached_input": 0, "output": 8},
)
UNKNOWN = replace(INTENT, completeness=Completeness.UNKNOWN, finish_reason="writer_lost")


@pytest.mark.parametrize(
    ("records", "facts"),
    [
        ([], ()),
        ([opened()], (UNKNOWN,)),
        ([opened(), ended()], ()),
        ([opened(), counted({"input": 100, "output": 3}), ended()], ()),
        ([opened(), counted({"input": 100, "output": 8})], (ESTIMATED,)),
        (
            [opened(), counted({"output": 3}), counted({"input": 100, "output": 8})],
            (ESTIMATED,),
        ),
        # As at the head of the next segment: again what was open.
        ([opened(), counted({"output": 3}), opened(), counted({"output": 3}), ended()], ()),
        # The intent was lost to damage.
        ([counted({"output": 3}), ended()], ()),
        ([counted({"output": 3})], ()),
    ],
)
def test_what_was_open_is_settled(records: list[Record], facts: tuple[UsageFact, ...]) -> None:
    assert settle_open(records).facts == facts


@pytest.mark.parametrize(
    ("records", "cost"),
    [([], 120 * 100), ([counted({"input": 100, "cached_input": 40, "output": 8})], 9600)],
)
def test_what_a_dead_writer_owes_is_priced_as_it_was_admitted(
    records: list[Record], cost: int
) -> None:
    rates = {"input": 100, "cached_input": 10, "output": 400}
    [fact] = settle_open([opened(replace(INTENT, rates=rates, price_version="v")), *records]).facts
    assert (fact.price_version, fact.cost_nano()) == ("v", cost)


def test_a_record_that_makes_no_sense_hides_no_other() -> None:
    nonsense = [record(kind, b"[]") for kind in RecordKind]
    closing = settle_open([nonsense[0], opened(), *nonsense[1:]])
    assert closing.facts == (UNKNOWN,)
    assert closing.unreadable == tuple(nonsense)


def test_a_later_format_or_schema_waits_for_a_later_shipper() -> None:
    with pytest.raises(UpgradeNeeded, match="format 2"):
        settle_open([record(RecordKind.CHECKPOINT, b"", version=2)])
    with pytest.raises(UpgradeNeeded, match=f"schema {SCHEMA_VERSION + 1}"):
        settle_open([opened(replace(INTENT, schema_version=SCHEMA_VERSION + 1))])


def dead_journal(journal: Path) -> tuple[Path, list[UsageFact], list[UsageFact]]:
    """A journal over several segments: its folder, what is settled, what is open."""
    writer = JournalWriter.open(journal, node="n", limits=SMALL)
    left_open = [draft(), draft()]
    for intent in left_open:
        writer.intent(intent)
    writer.checkpoint(left_open[0].event_id, {"output": 3})
    facts = write_settled(writer, 30)
    # Closed without giving back reserved space, as a killed process leaves it.
    os.close(writer._lock)
    writer._finished.clear()
    os.close(writer._segment.fd)
    return folder_of(journal, writer), facts, left_open


def test_closing_settles_in_the_dead_writers_own_journal(tmp_path: Path) -> None:
    folder, facts, left_open = dead_journal(tmp_path)
    closed = close_journal(folder, clock=wall)
    assert [fact.event_id for fact in closed.facts] == [fact.event_id for fact in left_open]
    assert [fact.completeness for fact in closed.facts] == ["estimated", "unknown"]
    assert closed.facts[0].quantities == {"input": 120, "cached_input": 0, "output": 3}
    assert closed.torn_bytes == 0
    assert settles_of(folder) == [*facts, *closed.facts]
    assert is_closed(folder)


def test_closing_twice_changes_nothing(tmp_path: Path) -> None:
    folder, _, _ = dead_journal(tmp_path)
    close_journal(folder, clock=wall)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = close_journal(folder, clock=wall)
    assert again.facts == ()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_closing_reads_on_where_a_crash_left_its_own_segment_half_written(in_memory: Path) -> None:
    folder, facts, _ = dead_journal(in_memory)
    first = close_journal(folder, clock=wall).facts
    (folder / "closed").unlink()
    last = segment_list(folder)[-1].path
    whole = last.read_bytes()
    for size in range(len(whole)):
        last.write_bytes(whole[:size] + bytes(len(whole) - size))
        close_journal(folder, clock=wall)
        assert sorted(settles_of(folder)[len(facts) :], key=_id) == sorted(first, key=_id)
        for extra in segment_list(folder)[-1:]:
            if extra.path != last:
                extra.path.unlink()
        for lost in folder.glob("*.torn"):
            lost.unlink()
        (folder / "closed").unlink()


@pytest.mark.parametrize("zeros", [True, False], ids=["reserved-space", "cut-short"])
def test_a_journal_torn_at_any_byte_of_its_last_record(in_memory: Path, zeros: bool) -> None:
    """Whatever the place: either the settle is there, or the call stands as its last checkpoint."""
    writer = JournalWriter.open(in_memory, node="n")
    facts = write_settled(writer, 1)
    intent = draft()
    writer.intent(intent)
    writer.checkpoint(intent.event_id, {"output": 3})
    writer.settle(settled(intent))
    writer.close()
    whole = segment_list(folder_of(in_memory, writer))[0].path.read_bytes()
    last = scan(whole).records[-1]
    for cut in range(last.start, last.end + 1):
        folder = in_memory / f"torn-{cut}"
        folder.mkdir()
        padding = bytes(4096) if zeros else b""
        (folder / "0000000001.seg").write_bytes(whole[:cut] + padding)
        closed = close_journal(folder, clock=wall)
        if cut == last.end:
            assert settles_of(folder) == [*facts, settled(intent)]
            assert list(folder.glob("*.torn")) == []
            continue
        assert [fact.completeness for fact in closed.facts] == ["estimated"]
        assert closed.facts[0].quantities["output"] == 3
        assert settles_of(folder) == [*facts, *closed.facts]
        kept = b"".join(path.read_bytes() for path in folder.glob("*.torn"))
        assert kept == whole[last.start : cut].rstrip(b"\0")
        assert closed.torn_bytes == len(kept)
        assert (folder / "0000000001.seg").stat().st_size == last.start


def test_a_settle_lost_to_damage_leaves_its_intent_to_be_settled(tmp_path: Path) -> None:
    folder, facts, left_open = dead_journal(tmp_path)
    first = segment_list(folder)[0].path
    data = bytearray(first.read_bytes())
    victim = next(r for r in scan(bytes(data)).records if r.kind == RecordKind.SETTLE)
    data[victim.end - 5] ^= 1
    first.write_bytes(data)
    closed = close_journal(folder, clock=wall)
    expected = [*(fact.event_id for fact in left_open), facts[0].event_id]
    assert [fact.event_id for fact in closed.facts] == expected
    assert closed.facts[-1].completeness == Completeness.UNKNOWN


def test_an_empty_folder_is_closed_too(tmp_path: Path) -> None:
    folder = tmp_path / "writer"
    folder.mkdir()
    assert close_journal(folder, clock=wall).facts == ()
    assert is_closed(folder)


def test_reserved_space_alone_is_no_torn_tail(tmp_path: Path) -> None:
    folder = tmp_path / "writer"
    folder.mkdir()
    data = frame(RecordKind.INTENT, encode_fact(INTENT), written_at=1)
    (folder / "0000000001.seg").write_bytes(data + bytes(100_000))
    assert close_journal(folder, clock=wall).torn_bytes == 0
    assert (folder / "0000000001.seg").stat().st_size == len(data)


def _id(fact: UsageFact) -> str:
    return fact.event_id
