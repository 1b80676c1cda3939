"""Writers as operators see them, and writing one off whose disk is lost."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command

from billing.models import JournalPosition
from billing.writers import WriterState, writer_state, writer_write_off
from kernel.errors import Conflict, Forbidden, Invalid, NotFound
from serving.journal.store import Batch, Position, PostgresStore, Sighting
from tenants.access import Caller
from tenants.models import AuditEvent
from tenants.scope import platform_scope

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WRITER = "node-1_0a1b2c3d_01J00000000000000000000001"
OPERATOR = Caller.system("test")


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, WriterState.SILENT),
        ({"seen_at": NOW - timedelta(seconds=61), "is_living": True}, WriterState.SILENT),
        ({"seen_at": NOW - timedelta(seconds=59), "is_living": True}, WriterState.LIVING),
        ({"seen_at": NOW, "is_living": False}, WriterState.DEAD),
        ({"seen_at": NOW, "held_because": "format 9"}, WriterState.HELD),
        ({"seen_at": NOW, "closed_at": NOW}, WriterState.CLOSED),
        ({"closed_at": NOW, "written_off_at": NOW}, WriterState.WRITTEN_OFF),
    ],
)
def test_what_is_known_of_a_writer_is_one_word(fields: dict[str, Any], state: WriterState) -> None:
    assert writer_state(JournalPosition(writer=WRITER, **fields), now=NOW) is state


pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def store() -> Iterator[PostgresStore]:
    made = PostgresStore(os.environ["TESSERA_DATABASE_SHIPPER_URL"])
    yield made
    made.close()


@pytest.fixture
def owner() -> Iterator[psycopg.Connection]:
    with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"], autocommit=True) as connection:
        connection.execute("SET app.platform = 'on'")
        yield connection


@pytest.fixture
def lost(store: PostgresStore, owner: psycopg.Connection) -> str:
    """Shipped a little, seen an hour ago."""
    store.write(Batch(WRITER, Position(3, 4711), (), ()))
    store.saw([Sighting(WRITER, is_living=True)])
    owner.execute("UPDATE journal_position SET seen_at = now() - interval '1 h'")
    return WRITER


def row() -> JournalPosition:
    with platform_scope():
        return JournalPosition.objects.get()


def test_a_lost_journal_is_written_off_once_and_recorded(lost: str) -> None:
    loss = writer_write_off(lost, caller=OPERATOR, reason=" The node burnt down. ")
    assert (loss.segment, loss.offset, loss.state) == (3, 4711, WriterState.SILENT)
    found = row()
    assert found.closed_at == found.written_off_at
    assert (found.written_off_by, found.written_off_reason) == ("test", "The node burnt down.")
    with platform_scope():
        event = AuditEvent.objects.get(verb="journal.write_off")
    assert event.detail["writer"] == lost
    assert event.detail["shipped_to"] == [3, 4711]
    with pytest.raises(Conflict, match="written off already"):
        writer_write_off(lost, caller=OPERATOR, reason="again")


def test_who_waits_for_it_goes_on(lost: str, owner: psycopg.Connection) -> None:
    """Decision 202: a roster is accounted for by announcements and closed journals."""
    owner.execute(
        "INSERT INTO gateway_roster (writer, cell, node) VALUES (%s, 'local', 'n'), (%s, 'local', 'n')",
        (lost, "never-shipped_0a1b2c3d_01J00000000000000000000002"),
    )
    with psycopg.connect(os.environ["TESSERA_DATABASE_GATEWAY_URL"]) as gateway:
        waiting = gateway.execute("SELECT * FROM tessera_roster('local')").fetchall()
        assert len(waiting) == 2
        for (writer,) in waiting:
            writer_write_off(writer, caller=OPERATOR, reason="disk lost")
        assert gateway.execute("SELECT * FROM tessera_roster('local')").fetchall() == []


@pytest.mark.parametrize(
    ("sighting", "why"),
    [
        (Sighting(WRITER, is_living=True), "has just seen it"),
        (Sighting(WRITER, is_living=False), "has just seen it"),
        (Sighting(WRITER, is_living=False, held_because="format 9"), "upgrade"),
    ],
)
def test_a_journal_that_somebody_sees_is_not_written_off(
    store: PostgresStore, sighting: Sighting, why: str
) -> None:
    store.saw([sighting])
    with pytest.raises(Conflict, match=why):
        writer_write_off(WRITER, caller=OPERATOR, reason="gone")
    assert row().closed_at is None


def test_it_takes_an_operator_a_reason_and_a_writer(lost: str) -> None:
    with pytest.raises(Invalid):
        writer_write_off(lost, caller=OPERATOR, reason="  ")
    with pytest.raises(NotFound):
        writer_write_off("nobody", caller=OPERATOR, reason="gone")
    nobody = Caller(actor_type=OPERATOR.actor_type, actor_id="x", label="x")
    with pytest.raises(Forbidden):
        writer_write_off(lost, caller=nobody, reason="gone")
    assert row().closed_at is None


def test_a_disk_that_is_found_after_all_is_booked_and_stays_written_off(
    lost: str, store: PostgresStore
) -> None:
    writer_write_off(lost, caller=OPERATOR, reason="disk lost")
    store.saw([Sighting(lost, is_living=False)])
    store.write(Batch(lost, Position(3, 5000), (), ()))
    found = row()
    assert (found.offset, found.closed_at) == (5000, found.written_off_at)


def test_the_command_shows_first_and_refuses_what_lies_here(
    lost: str, tmp_path: Path, settings: Any
) -> None:
    settings.TESSERA_HOME = tmp_path
    said = run(lost, "--dry-run")
    assert "shipped up to byte 4711 of segment 3" in said
    assert "last saw it 1 h 0 min ago" in said
    assert row().closed_at is None
    assert "It is written off" in run(lost)
    assert row().written_off_by.startswith("journal_write_off by ")
    (tmp_path / "journal" / lost).mkdir(parents=True)
    with pytest.raises(SystemExit):
        run(lost)


def run(*arguments: str) -> str:
    said = io.StringIO()
    call_command(
        "journal_write_off", *arguments, "--reason", "disk lost", stdout=said, stderr=io.StringIO()
    )
    return said.getvalue()
