"""Which request a key stands for: the functions that gateways call, as the gateways' role."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from billing.tests.factories import make_event

pytestmark = pytest.mark.django_db(transaction=True)

ORGANIZATION, PROJECT = UUID(int=1), UUID(int=2)
CLAIM = "SELECT * FROM tessera_idempotency_claim(%s, %s, %s, %s, %s)"


@pytest.fixture
def gateway() -> Iterator[psycopg.Connection]:
    with connected("GATEWAY") as connection:
        yield connection


@pytest.fixture
def owner() -> Iterator[psycopg.Connection]:
    with connected("OWNER") as connection:
        connection.execute("SET app.platform = 'on'")
        yield connection


def connected(role: str) -> psycopg.Connection:
    return psycopg.connect(os.environ[f"TESSERA_DATABASE_{role}_URL"], autocommit=True)


def claim(
    connection: psycopg.Connection, event: str, *, key: bytes = b"key", body: bytes = b"body"
) -> tuple[bool, str, bool]:
    row: Any = connection.execute(CLAIM, (key, body, event, ORGANIZATION, PROJECT)).fetchone()
    assert 0 <= row[3] < 60
    return (row[0], row[1], row[2])


def release(connection: psycopg.Connection, event: str) -> None:
    connection.execute("SELECT tessera_idempotency_release(%s, %s)", (b"key", event))


def test_the_first_has_the_key_and_everybody_else_hears_of_it(gateway: psycopg.Connection) -> None:
    assert claim(gateway, "first") == (True, "first", True)
    assert claim(gateway, "second") == (False, "first", True)
    assert claim(gateway, "third", body=b"other") == (False, "first", False)
    assert claim(gateway, "fourth", key=b"another") == (True, "fourth", True)


def test_a_key_is_released_by_who_has_it_alone(gateway: psycopg.Connection) -> None:
    claim(gateway, "first")
    release(gateway, "second")
    assert claim(gateway, "second") == (False, "first", True)
    release(gateway, "first")
    assert claim(gateway, "second", body=b"other") == (True, "second", True)


@pytest.mark.parametrize(("billable", "is_free"), [(False, True), (True, False)])
def test_what_came_to_nothing_that_is_owed_holds_no_key(
    gateway: psycopg.Connection, *, billable: bool, is_free: bool
) -> None:
    """Its gateway died before it could release the key; the journal tells."""
    claim(gateway, "first")
    make_event(event_id="first", billable=billable)
    assert claim(gateway, "second")[0] is is_free


def test_a_key_is_free_after_a_day_and_old_ones_go(
    gateway: psycopg.Connection, owner: psycopg.Connection
) -> None:
    for number in range(40):
        claim(gateway, f"event-{number}", key=b"%d" % number)
    owner.execute("UPDATE idempotency_key SET claimed_at = now() - interval '24 h 1 min'")
    assert claim(gateway, "again", key=b"7") == (True, "again", True)
    for number in range(3):
        claim(gateway, f"new-{number}", key=b"new-%d" % number)
    count = owner.execute("SELECT count(*) FROM idempotency_key").fetchone()
    assert count == (4,)


def test_of_many_at_once_one_wins(postgres: str) -> None:
    won: list[str] = []
    start = threading.Barrier(8)

    def ask(event: str) -> None:
        with connected("GATEWAY") as connection:
            start.wait(10)
            won.extend(event for key in range(20) if claim(connection, event, key=b"%d" % key)[0])

    threads = [threading.Thread(target=ask, args=(str(uuid4()),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 20


def test_gateways_may_call_and_nothing_else(gateway: psycopg.Connection) -> None:
    claim(gateway, "first")
    for statement in (
        "SELECT * FROM idempotency_key",
        "DELETE FROM idempotency_key",
        "SELECT * FROM usage_event",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            gateway.execute(statement)
    shown = gateway.execute("SELECT current_setting('app.platform', true)").fetchone()
    assert shown in {("",), (None,)}, "the function closes the scope that it opened"
