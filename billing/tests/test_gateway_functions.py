"""What gateways may ask of money in PostgreSQL, as their own role."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from billing.models import BalanceEntry
from tenants.models import Organization
from tenants.scope import platform_scope
from tenants.tests.factories import make_organization

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gateway() -> Iterator[psycopg.Connection]:
    with psycopg.connect(os.environ["TESSERA_DATABASE_GATEWAY_URL"], autocommit=True) as opened:
        yield opened


@pytest.fixture
def acme() -> Organization:
    return make_organization("acme")


def asked(gateway: psycopg.Connection, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    return gateway.execute(f"SELECT * FROM {statement}", arguments).fetchall()


def give(organization: Organization, nano: int, operation: str = "") -> int:
    with platform_scope():
        entry = BalanceEntry.objects.create(
            organization=organization,
            nano=nano,
            reason="test",
            actor="test",
            operation=operation or f"{nano} {timezone.now()}",
        )
    return entry.id


def spend(writer: str, account: str, nano: int, organization: Organization) -> None:
    with psycopg.connect(os.environ["TESSERA_DATABASE_SHIPPER_URL"]) as shipper:
        shipper.execute(
            "INSERT INTO writer_spend (writer, account, organization_id, nano)"
            " VALUES (%s, %s, %s, %s)",
            (writer, account, organization.id, nano),
        )


def close(writer: str) -> None:
    with psycopg.connect(os.environ["TESSERA_DATABASE_SHIPPER_URL"]) as shipper:
        shipper.execute(
            'INSERT INTO journal_position (writer, segment, "offset", closed_at)'
            " VALUES (%s, 1, 0, now())",
            (writer,),
        )


def test_a_writer_is_on_the_roster_of_its_cell_until_its_journal_is_closed(
    gateway: psycopg.Connection,
) -> None:
    for writer, cell in (("a", "one"), ("b", "one"), ("c", "two"), ("a", "one")):
        assert asked(gateway, "tessera_roster_enter(%s, %s, 'node')", writer, cell) == [(True,)]
    assert asked(gateway, "tessera_roster('one')") == [("a",), ("b",)]
    close("a")
    assert asked(gateway, "tessera_roster('one')") == [("b",)]
    assert asked(gateway, "tessera_roster_enter('a', 'one', 'node')") == [(False,)]


def test_who_closed_long_ago_leaves_the_roster_with_the_next_who_enters(
    gateway: psycopg.Connection, postgres: str
) -> None:
    for writer in ("old", "new"):
        asked(gateway, "tessera_roster_enter(%s, 'one', 'node')", writer)
        close(writer)
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute("SET app.platform = 'on'")
        owner.execute(
            "UPDATE journal_position SET closed_at = now() - interval '31 days' WHERE writer='old'"
        )
        asked(gateway, "tessera_roster_enter('third', 'one', 'node')")
        rows = owner.execute("SELECT writer FROM gateway_roster ORDER BY 1").fetchall()
    assert rows == [("new",), ("third",)]


def test_a_base_is_credits_less_what_those_spent_who_are_not_left_out(
    gateway: psycopg.Connection, acme: Organization
) -> None:
    other = make_organization("globex")
    account = f"org:{acme.id}"
    last = [give(acme, nano) for nano in (1000, -300)][-1]
    give(other, 5)
    for writer, nano in (("a", 10), ("b", 200)):
        spend(writer, account, nano, acme)
        spend(writer, f"{account}:202611", nano, acme)
    base = "tessera_account_base(%s, %s)"
    assert asked(gateway, base, account, []) == [(490, last)]
    assert asked(gateway, base, account, ["a", "nobody"]) == [(500, last)]
    assert asked(gateway, base, account, ["a", "b"]) == [(700, last)]
    assert asked(gateway, base, f"{account}:202611", ["b"]) == [(-10, 0)]
    assert asked(gateway, base, "key:nobody:202611", []) == [(0, 0)]


def test_totals_are_told_of_closed_writers_only(
    gateway: psycopg.Connection, acme: Organization
) -> None:
    for writer in ("open", "closed"):
        spend(writer, "x", 7, acme)
        spend(writer, "y", 9, acme)
    close("closed")
    close("idle")
    found = asked(gateway, "tessera_closed_totals(%s)", ["open", "closed", "idle", "unknown"])
    assert set(found) == {("closed", "x", 7), ("closed", "y", 9), ("idle", None, None)}


def test_entries_come_in_order_and_name_the_one_before(
    gateway: psycopg.Connection, acme: Organization
) -> None:
    other = make_organization("globex")
    first, foreign, second = give(acme, 10), give(other, 20), give(acme, -3)
    [(behind,)] = asked(gateway, "tessera_balance_old_entry()")
    assert behind == 0, "nothing is older than a day"
    assert asked(gateway, "tessera_balance_entries(0)") == [
        (first, str(acme.id), 0, 10),
        (foreign, str(other.id), 0, 20),
        (second, str(acme.id), first, -3),
    ]
    assert asked(gateway, "tessera_balance_entries(%s)", foreign)[0][0] == second


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO balance_entry (organization_id, nano) SELECT id, 1 FROM tenants_organization",
        "UPDATE balance_entry SET nano = 0",
        "DELETE FROM balance_entry",
        "INSERT INTO writer_spend VALUES ('a', 'b', gen_random_uuid(), 1)",
        "UPDATE writer_spend SET nano = 0",
        "DELETE FROM writer_spend",
        "DELETE FROM gateway_roster",
    ],
)
def test_neither_gateway_nor_application_writes_past_its_doors(
    gateway: psycopg.Connection, statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        gateway.execute(statement)
    if statement.startswith("INSERT INTO balance_entry"):
        return
    with (
        psycopg.connect(os.environ["DATABASE_URL"]) as application,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        application.execute(statement)


def test_the_shipper_gives_nobody_anything() -> None:
    with psycopg.connect(os.environ["TESSERA_DATABASE_SHIPPER_URL"]) as shipper:
        for statement in ("SELECT * FROM balance_entry", "DELETE FROM writer_spend"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), shipper.transaction():
                shipper.execute(statement)


def test_a_base_of_many_writers_is_read_by_an_index(acme: Organization, postgres: str) -> None:
    """The sum is over the account's rows alone, without touching the table."""
    account = f"org:{acme.id}"
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute("SET app.platform = 'on'")
        owner.execute(
            "INSERT INTO writer_spend SELECT 'w' || w, 'a' || a, %s, 1"
            " FROM generate_series(1, 100) w, generate_series(1, 100) a",
            (acme.id,),
        )
        owner.execute("VACUUM ANALYZE writer_spend")
        plan = owner.execute(
            "EXPLAIN SELECT sum(nano) FROM writer_spend WHERE account = %s AND writer <> ALL (%s)",
            (account, ["w1"]),
        ).fetchall()
    assert "writer_spend_by_account" in str(plan)
