from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection, transaction
from django.db.utils import ProgrammingError

from billing.services import MONTHS_AHEAD, partitions_create
from billing.tasks import partitions
from billing.tests.factories import make_event

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def owner() -> Iterator[psycopg.Connection]:
    with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"], autocommit=True) as opened:
        opened.execute("SET app.platform = 'on'")
        yield opened


@pytest.fixture
def far_months(owner: psycopg.Connection) -> Iterator[None]:
    """Partitions that a test makes go away again."""
    before = set(_partitions(owner))
    yield
    for name in set(_partitions(owner)) - before:
        owner.execute(f"DROP TABLE {name}")


def _partitions(owner: psycopg.Connection) -> list[str]:
    rows = owner.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'usage_event'::regclass ORDER BY 1"
    )
    return [name for (name,) in rows]


def _month(ahead: int) -> datetime:
    now = datetime.now(UTC)
    months = now.year * 12 + now.month - 1 + ahead
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def test_the_coming_months_have_partitions_from_the_start(owner: psycopg.Connection) -> None:
    wanted = [f"usage_event_{_month(ahead):%Y_%m}" for ahead in range(MONTHS_AHEAD + 1)]
    assert set(wanted) <= set(_partitions(owner))
    assert "usage_event_default" in _partitions(owner)


def test_usage_lies_in_the_partition_of_its_month(owner: psycopg.Connection) -> None:
    first, border = _month(1), _month(2)
    for instant in (first, border - timedelta(microseconds=1), border):
        make_event(occurred_at=instant)
    rows = owner.execute(
        "SELECT tableoid::regclass::text FROM usage_event ORDER BY occurred_at"
    ).fetchall()
    names = [f"usage_event_{month:%Y_%m}" for month in (first, first, border)]
    assert [name for (name,) in rows] == names


def test_usage_that_came_too_early_moves_to_its_month(
    owner: psycopg.Connection, far_months: None
) -> None:
    early, later = _month(MONTHS_AHEAD + 1), _month(MONTHS_AHEAD + 2)
    events = [make_event(occurred_at=instant) for instant in (early, later)]
    assert owner.execute("SELECT count(*) FROM usage_event_default").fetchone() == (2,)
    assert partitions_create(MONTHS_AHEAD + 1) == 1
    assert owner.execute("SELECT count(*) FROM usage_event_default").fetchone() == (1,)
    kept = owner.execute("SELECT event_id FROM usage_event ORDER BY occurred_at").fetchall()
    assert [event_id for (event_id,) in kept] == [event["event_id"] for event in events]
    name = f"usage_event_{early:%Y_%m}"
    assert owner.execute(f"SELECT count(*) FROM {name}").fetchone() == (1,)


def test_asking_again_makes_nothing(far_months: None) -> None:
    assert partitions_create() == 0
    partitions()
    assert partitions_create(MONTHS_AHEAD) == 0


@pytest.mark.parametrize("table", ["usage_event_default", "this month"])
def test_nobody_reaches_a_partition_past_the_policies_of_its_parent(table: str) -> None:
    name = f"usage_event_{_month(0):%Y_%m}" if table == "this month" else table
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SELECT * FROM {name}")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO usage_event SELECT * FROM usage_event",
        "UPDATE usage_event SET output_tokens = 0",
        "DELETE FROM usage_event",
        "TRUNCATE usage_event",
        "UPDATE usage_quarantine SET reason = ''",
        "DELETE FROM usage_quarantine",
        "UPDATE journal_position SET segment = 0",
        "DELETE FROM journal_position",
    ],
)
def test_the_application_reads_usage_and_never_writes_it(statement: str) -> None:
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)


def test_not_even_the_owner_changes_usage(owner: psycopg.Connection) -> None:
    make_event()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only ever added"):
        owner.execute("UPDATE usage_event SET output_tokens = 0")
