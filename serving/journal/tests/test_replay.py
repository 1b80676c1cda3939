from __future__ import annotations

import io
import os
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command

from serving.journal.replay import Replayed, replay
from serving.journal.segment import segment_list
from serving.journal.shipping import Shipper
from serving.journal.store import PostgresStore
from serving.journal.tests.facts import SMALL, draft, folder_of, write_settled
from serving.journal.tests.stores import MemoryStore
from serving.journal.writer import JournalWriter


def test_a_store_that_lost_everything_gets_it_back(tmp_path: Path) -> None:
    first, second = (JournalWriter.open(tmp_path, node="n", limits=SMALL) for _ in range(2))
    facts = write_settled(first, 30) + write_settled(second, 5)
    left_open = draft()
    first.intent(left_open)
    first.close()
    Shipper(tmp_path, MemoryStore()).ship()
    facts += write_settled(second, 5)  # not shipped yet

    store = MemoryStore()
    done = replay(tmp_path, store)
    assert store.event_ids == sorted([*(f.event_id for f in facts), left_open.event_id])
    assert (done.new, done.known, done.quarantined) == (41, 0, 0)
    assert done.segments == sum(len(segment_list(folder_of(tmp_path, w))) for w in (first, second))
    assert store.reached == {}, "how far the shipper got is its own business"
    assert replay(tmp_path, store) == Replayed(done.segments, 0, 41, 0)
    second.close()


def test_one_writer_alone(tmp_path: Path) -> None:
    first, second = (JournalWriter.open(tmp_path, node="n") for _ in range(2))
    facts = write_settled(first, 2)
    write_settled(second, 3)
    store = MemoryStore()
    replay(tmp_path, store, writer=first.writer_id)
    assert store.event_ids == sorted(fact.event_id for fact in facts)
    first.close()
    second.close()


@pytest.mark.django_db(transaction=True)
def test_the_command_says_what_it_did(tmp_path: Path, postgres: str) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    write_settled(writer, 3)
    writer.close()
    store = PostgresStore(os.environ["TESSERA_DATABASE_SHIPPER_URL"])
    Shipper(tmp_path, store).ship()
    store.close()
    assert _run(tmp_path) == (
        "1 segments: 0 facts were missing and are there now, "
        "3 were there, 0 stand in quarantine since now.\n"
    )
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute("ALTER TABLE usage_event DISABLE TRIGGER USER")
        owner.execute("TRUNCATE usage_event")
        owner.execute("ALTER TABLE usage_event ENABLE TRIGGER USER")
    for _ in range(2):
        assert "3 facts are missing, 0 were there, 0 would stand" in _run(tmp_path, dry_run=True)
    assert "3 facts were missing and are there now, 0 were there" in _run(tmp_path)
    assert "0 facts are missing, 3 were there" in _run(tmp_path, dry_run=True)


@pytest.mark.django_db(transaction=True)
def test_the_command_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    with pytest.raises(CommandError, match=f"There are: {writer.writer_id}"):
        _run(tmp_path, writer="somebody")
    write_settled(writer, 1)
    writer.close()
    monkeypatch.setenv("TESSERA_DATABASE_SHIPPER_URL", "postgresql:///x?host=/nonexistent")
    with pytest.raises(CommandError, match="run it again when this is mended"):
        _run(tmp_path)
    monkeypatch.setenv("TESSERA_DATABASE_SHIPPER_URL", "")
    with pytest.raises(CommandError, match="Set TESSERA_DATABASE_SHIPPER_URL"):
        _run(tmp_path)


def test_every_segment_is_told_of(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    write_settled(writer, 30)
    writer.close()
    told: list[int] = []
    done = replay(
        tmp_path, MemoryStore(), on_segment=lambda _segment, so_far: told.append(so_far.segments)
    )
    assert told == list(range(1, done.segments + 1))


def _run(journal: Path, **options: str | bool) -> str:
    said = io.StringIO()
    call_command("journal_replay", journal=journal, stdout=said, **options)
    return said.getvalue()
