"""Money as PostgreSQL has it, asked as the gateway's role; and what is done while it is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, LiteralString

import psycopg
import pytest

from serving.admission.ledger import Base, LedgerUnavailable, Roster
from serving.gateway.database import Database, SourceDown
from serving.gateway.treasury import NEWS_SECONDS, Row, Treasury, pause_seconds
from tenants.models import Organization
from tenants.tests.factories import make_organization

pytestmark = pytest.mark.django_db(transaction=True)


def as_owner(statement: LiteralString, *arguments: Any) -> None:
    with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"]) as owner:
        owner.execute("SET LOCAL app.platform = 'on'")
        owner.execute(statement, arguments)


def give(organization: Organization, nano: int) -> None:
    as_owner(
        "INSERT INTO balance_entry (organization_id, nano, reason, actor, operation)"
        " VALUES (%s, %s, 'test', 'test', gen_random_uuid()::text)",
        *(organization.id, nano),
    )


def as_shipper(statement: LiteralString, *arguments: Any) -> None:
    with psycopg.connect(os.environ["TESSERA_DATABASE_SHIPPER_URL"]) as shipper:
        shipper.execute(statement, arguments)


def spend(writer: str, account: str, nano: int, organization: Organization) -> None:
    as_shipper(
        "INSERT INTO writer_spend VALUES (%s, %s, %s, %s)",
        *(writer, account, organization.id, nano),
    )


def close(writer: str) -> None:
    as_shipper(
        'INSERT INTO journal_position (writer, segment, "offset", closed_at)'
        " VALUES (%s, 1, 0, now())",
        writer,
    )


@pytest.fixture
def acme(transactional_db: None) -> Organization:
    return make_organization("acme")


@pytest.fixture
async def database(acme: Organization) -> AsyncIterator[Database]:
    opened = Database(os.environ["TESSERA_DATABASE_GATEWAY_URL"])
    yield opened
    await opened.close()


def treasury(source: Any, writer: str = "me") -> Treasury:
    return Treasury(source, writer=writer, cell="cell", node="node")


class Admission:
    """What it was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.entries: list[int] = []
        self.is_down = False

    async def credit(self, account: str, *, previous: int, entry: int, nano: int) -> bool:
        if self.is_down:
            return False
        self.told.append((account, previous, nano))
        self.entries.append(entry)
        return True


async def test_whoever_asks_for_the_roster_is_on_it(database: Database) -> None:
    assert await treasury(database, "other").roster() == Roster(living=("other",))
    me = treasury(database)
    assert (await me.roster()).living == ("me", "other")
    assert (await me.roster()).living == ("me", "other")


async def test_the_dead_are_told_with_what_they_came_to(
    database: Database, acme: Organization
) -> None:
    me = treasury(database)
    for writer in ("dead", "idle", "open"):
        await treasury(database, writer).roster()
        spend(writer, "x", 5, acme) if writer != "idle" else None
    spend("dead", "y", 7, acme)
    for writer in ("dead", "idle"):
        await asyncio.to_thread(close, writer)
    found = await me.roster(["dead", "idle", "open", "nobody"])
    assert found.living == ("me", "open")
    assert found.closed == {"dead": {"x": 5, "y": 7}, "idle": {}}
    assert (await me.roster()).closed == {}, "nobody asked"


async def test_who_was_written_off_is_not_on_the_roster(database: Database) -> None:
    await asyncio.to_thread(close, "me")
    assert (await treasury(database).roster()).living == ()


async def test_a_base_leaves_out_who_was_announced(database: Database, acme: Organization) -> None:
    account = f"org:{acme.id}"
    give(acme, 10**15)
    spend("a", account, 10, acme)
    spend("b", account, 200, acme)
    me = treasury(database)
    base = await me.base(account, ["b", "me"])
    assert base == Base(nano=10**15 - 10, last_entry=base.last_entry)
    assert base.last_entry > 0
    assert await me.base("key:k:202611", []) == Base(nano=0, last_entry=0)


async def test_new_entries_are_told_once_and_in_order(
    database: Database, acme: Organization
) -> None:
    me, admission = treasury(database), Admission()
    for nano in (10, -3):
        give(acme, nano)
    assert await me.tell_news(admission.credit)
    first = admission.entries[0]
    account = f"org:{acme.id}"
    assert admission.told == [(account, 0, 10), (account, first, -3)]
    assert await me.tell_news(admission.credit)
    assert len(admission.told) == 2
    give(acme, 1)
    assert await me.tell_news(admission.credit)
    assert admission.told[2:] == [(account, admission.entries[1], 1)]


async def test_what_could_not_be_told_is_told_again(database: Database, acme: Organization) -> None:
    me, admission = treasury(database), Admission()
    give(acme, 10)
    admission.is_down = True
    assert not await me.tell_news(admission.credit)
    admission.is_down = False
    assert await me.tell_news(admission.credit)
    assert [nano for *_, nano in admission.told] == [10]


async def test_more_entries_than_one_answer_holds_are_all_told(
    database: Database, acme: Organization
) -> None:
    as_owner(
        "INSERT INTO balance_entry (organization_id, nano, reason, actor, operation)"
        " SELECT %s, n, 'test', 'test', n::text FROM generate_series(1, 1100) n",
        acme.id,
    )
    admission = Admission()
    assert await treasury(database).tell_news(admission.credit)
    assert [nano for *_, nano in admission.told] == list(range(1, 1101))


async def test_what_is_older_than_a_day_was_told_by_somebody_else(
    database: Database, acme: Organization
) -> None:
    as_owner(
        "INSERT INTO balance_entry (organization_id, nano, reason, actor, operation, created_at)"
        " VALUES (%s, 5, 'test', 'test', 'old', now() - interval '25 hours')",
        acme.id,
    )
    give(acme, 6)
    admission = Admission()
    assert await treasury(database).tell_news(admission.credit)
    assert [nano for *_, nano in admission.told] == [6]


async def test_spending_that_arrived_late_makes_the_account_be_read_again(
    database: Database, acme: Organization
) -> None:
    give(acme, 0)
    admission = Admission()
    assert await treasury(database).tell_news(admission.credit)
    assert admission.told == [(f"org:{acme.id}", -1, 0)]


class Failing:
    """A source that is away, or a release behind."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.asked = 0

    async def fetch(self, query: LiteralString, parameters: Sequence[object]) -> Row | None:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize("error", [SourceDown("x"), psycopg.errors.UndefinedFunction("x")])
async def test_an_outage_is_the_ledgers_word_for_it(error: Exception) -> None:
    away = treasury(Failing(error))
    for asking in (away.roster(), away.base("org:x", []), away.tell_news(Admission().credit)):
        with pytest.raises(LedgerUnavailable):
            await asking


async def test_a_real_outage_is_short_and_over_when_it_is_over(
    database: Database, acme: Organization
) -> None:
    nowhere = Database("postgresql://nobody@/nothing?host=/nonexistent")
    with pytest.raises(LedgerUnavailable):
        await treasury(nowhere).roster()
    await nowhere.close()
    me = treasury(database)
    assert (await me.roster()).living == ("me",)
    assert database._connection is not None
    database._connection.pgconn.finish()
    with pytest.raises(LedgerUnavailable):
        await me.base(f"org:{acme.id}", [])
    database._rests_until = 0.0
    assert (await me.roster()).living == ("me",)


async def test_the_rhythm_slows_down_while_it_fails_and_never_ends() -> None:
    source, pauses = Failing(SourceDown("x")), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            source.error = asyncio.CancelledError()

    with pytest.raises(asyncio.CancelledError):
        await treasury(source).run(Admission().credit, sleep=sleep, jitter=lambda: 1.0)
    assert pauses == [4, 8, 15, 15, 15, 15]
    assert source.asked == 7


@pytest.mark.parametrize(("failures", "low", "high"), [(0, 1.0, 2.0), (1, 2.0, 4.0), (9, 7.5, 15)])
def test_pauses_are_spread(failures: int, low: float, high: float) -> None:
    assert pause_seconds(failures, jitter=0) == low
    assert pause_seconds(failures, jitter=1) == high
    assert pause_seconds(0, jitter=1) == NEWS_SECONDS
