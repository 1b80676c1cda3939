"""The door to PostgreSQL, as the shipper's role, with row-level security and the real partitions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from kernel.usage import SCHEMA_VERSION, accounts_of
from serving.journal.record import Record, RecordKind, encode_fact
from serving.journal.rows import QuarantineReason, batch_rows
from serving.journal.store import Batch, Position, PostgresStore, StoreUnavailable, Written
from serving.journal.tests.facts import draft, settled
from tenants.tests.factories import make_organization

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def store() -> Iterator[PostgresStore]:
    store = PostgresStore(os.environ["TESSERA_DATABASE_SHIPPER_URL"])
    yield store
    store.close()


@pytest.fixture
def owner() -> Iterator[psycopg.Connection]:
    """Sees every row of every organization."""
    with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"], autocommit=True) as connection:
        connection.execute("SET app.platform = 'on'")
        yield connection


def batch(*facts: Any, position: Position | None = None, closed: bool = False) -> Batch:
    payloads = [fact if isinstance(fact, bytes) else encode_fact(fact) for fact in facts]
    records = [Record(1, RecordKind.SETTLE, 0, payload, 0, 0) for payload in payloads]
    rows, refused = batch_rows(records)
    return Batch("writer-1", position or Position(1, 100), rows, refused, closed)


def test_facts_become_rows_with_every_field(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    fact = settled(
        draft(),
        quantities={"input": 7, "cached_input": 3, "output": 2**62, "image": 4},
        rollout="rollout-1",
        arm="candidate",
        billable=False,
    )
    assert store.write(batch(fact)) == Written(1, 0, ())
    row = owner.execute(
        "SELECT event_id, fact_hash, organization_id::text, key_id::text, input_tokens,"
        " cached_input_tokens, output_tokens, other_quantities, completeness, billable, model,"
        " rollout, arm, finish_reason, price_version, schema_version FROM usage_event"
    ).fetchone()
    assert row == (
        *(fact.event_id, fact.fact_hash(), fact.organization, fact.key),
        *(7, 3, 2**62, {"image": 4}, "final", False, "support"),
        *("rollout-1", "candidate", "stop", None, SCHEMA_VERSION),
    )


def test_the_same_fact_again_changes_nothing(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    facts = [settled(draft()) for _ in range(3)]
    store.write(batch(*facts))
    assert store.write(batch(*facts, facts[0])) == Written(0, 4, ())
    assert owner.execute("SELECT count(*) FROM usage_event").fetchone() == (3,)


@pytest.mark.parametrize("together", [True, False])
def test_another_fact_with_the_same_identity_stands_aside(
    store: PostgresStore, owner: psycopg.Connection, together: bool
) -> None:
    fact = settled(draft())
    other = replace(fact, quantities={"input": 1, "output": 1})
    if together:
        written = store.write(batch(fact, other))
    else:
        store.write(batch(fact))
        written = store.write(batch(other))
    assert [row.reason for row in written.quarantined] == [QuarantineReason.CONFLICT]
    assert owner.execute("SELECT output_tokens FROM usage_event").fetchall() == [(55,)]
    kept = owner.execute("SELECT reason, event_id, fact_hash FROM usage_quarantine").fetchall()
    assert kept == [("conflict", fact.event_id, other.fact_hash())]
    assert store.write(batch(other)).quarantined == (), "it is set aside once, not at every replay"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\x00not json",
        b'{"event_id": "x"}',
        encode_fact(settled(draft(organization="acme"))),
        encode_fact(settled(draft(), quantities={"input": -1})),
        encode_fact(settled(draft(), quantities={"output": 2**63})),
        encode_fact(settled(draft(occurred_at=10**18))),
        encode_fact(settled(draft(occurred_at=-(10**18)))),
        encode_fact(settled(draft(model="a\0b"))),
        encode_fact(settled(draft(), quantities={"a\0b": 1})),
        encode_fact(settled(draft(event_id=""))),
        encode_fact(settled(draft(event_id="\0"))),
    ],
)
def test_what_no_row_can_hold_stands_aside_and_holds_up_nothing(
    store: PostgresStore, owner: psycopg.Connection, payload: bytes
) -> None:
    fact = settled(draft())
    written = store.write(batch(payload, fact))
    assert written.new == 1
    assert [row.reason for row in written.quarantined] == [QuarantineReason.SHAPE]
    assert owner.execute("SELECT count(*) FROM usage_quarantine").fetchone() == (1,)
    assert store.positions() == {"writer-1": Position(1, 100)}


def test_a_row_that_the_database_refuses_stands_aside(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    owner.execute("ALTER TABLE usage_event ADD CONSTRAINT no_seven CHECK (output_tokens <> 7)")
    try:
        bad = settled(draft(), quantities={"output": 7})
        good = [settled(draft()) for _ in range(3)]
        written = store.write(batch(good[0], bad, *good[1:]))
    finally:
        owner.execute("ALTER TABLE usage_event DROP CONSTRAINT no_seven")
    assert written.new == 3
    assert [row.reason for row in written.quarantined] == [QuarantineReason.DATABASE]
    assert store.positions() == {"writer-1": Position(1, 100)}


def spent(owner: psycopg.Connection) -> dict[tuple[str, str], int]:
    rows = owner.execute("SELECT writer, account, nano FROM writer_spend").fetchall()
    return {(writer, account): nano for writer, account, nano in rows}


RATES = {"input": 100, "cached_input": 10, "output": 400}


def test_what_new_rows_cost_is_their_writers_spending(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    facts = [
        settled(draft(rates=RATES, price_version="v"), quantities=quantities)
        for quantities in (
            {"input": 10, "cached_input": 4, "output": 3},
            {"input": 1, "cached_input": 0, "output": 0},
        )
    ]
    free = settled(draft(rates=RATES), billable=False)
    store.write(batch(*facts, free))
    assert [fact.cost_nano() for fact in facts] == [1840, 100]
    costs = owner.execute("SELECT cost_nano FROM usage_event ORDER BY cost_nano").fetchall()
    assert costs == [(0,), (100,), (1840,)]
    assert spent(owner) == {("writer-1", account): 1940 for account in accounts_of(facts[0])}


def test_what_is_there_costs_no_second_time(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    first, second = (settled(draft(rates=RATES)) for _ in range(2))
    store.write(batch(first))
    once = spent(owner)
    store.write(batch(first, first))
    store.write(replace(batch(first), position=None))
    store.write(batch(replace(first, quantities={"input": 10**6, "output": 0})))
    assert spent(owner) == once, "repeats, replays and contradictions add nothing"
    store.write(batch(first, second))
    assert spent(owner) == {key: 2 * nano for key, nano in once.items()}


def test_spending_that_arrives_when_its_writer_was_closed_is_news(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    """Also of an organization that is not there, which holds up nothing."""
    organization = make_organization()
    late = settled(draft(rates=RATES, organization=str(organization.id)))
    final = settled(draft(rates=RATES, organization=str(organization.id)))
    store.write(batch(final, closed=True))
    entries = "SELECT organization_id, nano, reason FROM balance_entry"
    assert owner.execute(entries).fetchall() == [], "in time"
    for _ in range(2):
        store.write(replace(batch(late, settled(draft(rates=RATES))), position=None))
    assert owner.execute(entries).fetchall()[0] == (organization.id, 0, "Usage arrived late")


def test_what_stands_aside_costs_nothing(store: PostgresStore, owner: psycopg.Connection) -> None:
    dear = settled(draft(rates={"output": 2**52}), quantities={"output": 3})
    backwards = settled(draft(rates=RATES), quantities={"input": 0, "cached_input": 5})
    assert len(store.write(batch(dear, backwards)).quarantined) == 2
    assert spent(owner) == {}


def test_rows_of_the_release_before_cost_nothing(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    store.write(batch(settled(draft(schema_version=1))))
    assert spent(owner) == {}


def test_a_batch_that_fails_spends_nothing(store: PostgresStore, owner: psycopg.Connection) -> None:
    owner.execute("ALTER TABLE journal_position ADD CONSTRAINT no_ninety CHECK (segment <> 90)")
    try:
        with pytest.raises(StoreUnavailable):
            store.write(batch(settled(draft(rates=RATES)), position=Position(90, 0)))
    finally:
        owner.execute("ALTER TABLE journal_position DROP CONSTRAINT no_ninety")
    assert spent(owner) == {}


def test_positions_only_go_forward(store: PostgresStore) -> None:
    for position in (Position(1, 500), Position(2, 10), Position(1, 900), Position(2, 9)):
        store.write(batch(position=position))
    assert store.positions() == {"writer-1": Position(2, 10)}


def test_a_closed_journal_says_so(store: PostgresStore, owner: psycopg.Connection) -> None:
    store.write(batch(position=Position(1, 5)))
    assert owner.execute("SELECT closed_at FROM journal_position").fetchone() == (None,)
    store.write(batch(position=Position(2, 0), closed=True))
    row = owner.execute("SELECT closed_at IS NOT NULL FROM journal_position").fetchone()
    assert row == (True,)


def test_instants_around_a_month_keep_their_microsecond(
    store: PostgresStore, owner: psycopg.Connection
) -> None:
    """At partition borders, long ago (the default partition) and far ahead."""
    today = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    next_month = (today + timedelta(days=40)).replace(day=1)
    instants = [
        today,
        today - timedelta(microseconds=1),
        next_month,
        next_month - timedelta(microseconds=1),
        datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2150, 1, 1, tzinfo=UTC),
    ]
    facts = [settled(draft(occurred_at=_micros(instant))) for instant in instants]
    assert store.write(batch(*facts)).new == len(facts)
    assert store.write(batch(*facts)) == Written(0, len(facts), ())
    rows = owner.execute("SELECT event_id, occurred_at FROM usage_event").fetchall()
    assert dict(rows) == {f.event_id: i for f, i in zip(facts, instants, strict=True)}


def test_the_shipper_may_add_and_nothing_else(store: PostgresStore) -> None:
    store.write(batch(settled(draft())))
    forbidden = [
        "SELECT organization_id FROM usage_event",
        "UPDATE usage_event SET output_tokens = 0",
        "DELETE FROM usage_event",
        "TRUNCATE usage_event",
        "SELECT * FROM usage_event_default",
        "SELECT fact FROM usage_quarantine",
        "DELETE FROM journal_position",
        "SELECT * FROM tenants_organization",
    ]
    for statement in forbidden:
        with (
            psycopg.connect(os.environ["TESSERA_DATABASE_SHIPPER_URL"]) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement)


def test_a_database_that_is_away_is_unavailable_and_later_fine() -> None:
    away = PostgresStore("postgresql://nobody@/nothing?host=/nonexistent")
    with pytest.raises(StoreUnavailable):
        away.positions()
    with pytest.raises(StoreUnavailable):
        away.write(batch(settled(draft())))


def test_a_cut_connection_is_replaced(store: PostgresStore, postgres: str) -> None:
    facts = [settled(draft())]
    store.write(batch(*facts))
    assert store._connection is not None
    store._connection.pgconn.finish()
    assert store.write(batch(*facts)) == Written(0, 1, ())


def _micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
