"""Operators' pages of a cell: what Redis holds is on them, in CSV and in JSON; nobody else sees it."""

from __future__ import annotations

import csv
import os
import time
from io import StringIO
from typing import Any

import msgspec
import psycopg
import pytest
import redis
from django.test import Client
from pytest_django import Settings

from controlplane import admitted
from controlplane.portal.tests.conftest import House, signed_in
from kernel.ids import ulid
from serving.admission.keys import admission_prefix
from serving.gateway.presence import Sign, presence_key
from tenants.tests.factories import make_user

pytestmark = pytest.mark.django_db

CELL = "cell-of-this-test"
EPOCH = "3-0a1b-1700000000000000"


@pytest.fixture(autouse=True)
def its_cell(settings: Settings, redis_client: redis.Redis) -> None:
    settings.TESSERA_CELL = CELL


@pytest.fixture
def operator() -> Client:
    user = make_user("operator@tessera.example")
    user.is_staff = user.is_superuser = True
    user.save()
    return signed_in(user)


def fill(redis_client: redis.Redis, *, organization: str, cell: str = CELL) -> str:
    """An epoch with one writer that holds two calls, and three calls that wait for one pool."""
    prefix = admission_prefix(cell)
    writer, money, queue = "node-1_boot_1", f"{prefix}money:{EPOCH}:", f"{prefix}queue:pool-1:"
    seconds, _ = redis_client.time()
    now = seconds * 1_000_000
    redis_client.set(f"{prefix}epoch", EPOCH)
    redis_client.sadd(f"{money}announced", writer)
    redis_client.set(f"{prefix}alive:{writer}", 1)
    for _number in range(2):
        hold = msgspec.msgpack.encode([1_500_000_000, "org:a", "key:b:202611"])
        redis_client.hset(f"{money}holds:{writer}", ulid(), hold)
    redis_client.sadd(f"{prefix}pools", "pool-1")
    redis_client.hset(f"{queue}state", mapping={"slots": 8, "bytes": 2_000})
    redis_client.zadd(f"{prefix}slots:pool-1", {"a": now / 1000 + 9_000, "lapsed": 1})
    waiting = {f"w{n}": now - n * 4_000_000 for n in range(3)}
    redis_client.zadd(f"{queue}arrivals:2", waiting)
    redis_client.zadd(f"{queue}tenants:2", {organization: 10.5})
    redis_client.zadd(f"{queue}calls:2:{organization}", waiting)
    return writer


def speak(
    redis_client: redis.Redis, name: str, *, ago_seconds: float = 0.0, cell: str = CELL
) -> None:
    node, _, index = name.partition("/")
    at = time.time() - ago_seconds
    sign = Sign(
        node=node,
        index=int(index),
        writer=f"{node}_boot_{index}",
        pid=7,
        started_at=at - 600,
        at=at,
        counters={
            "tessera_gateway_local_admissions_total": 4,
            'tessera_gateway_ejections_total{reason="stalled"}': 2,
        },
        gauges={
            "tessera_gateway_redis_up": 1.0,
            "tessera_gateway_streams": 5,
            'tessera_gateway_replica_ejected{replica="replica-7"}': 1,
            'tessera_gateway_replica_ejected{replica="replica-8"}': 0,
        },
    )
    redis_client.hset(presence_key(cell), name, msgspec.json.encode(sign))


def enter(writer: str, *, closed: bool = False, cell: str = CELL) -> None:
    """As the gateway does it, on a connection of its own; a shipper closes the journal."""
    with psycopg.connect(os.environ["TESSERA_DATABASE_GATEWAY_URL"], autocommit=True) as gateway:
        gateway.execute("SELECT tessera_roster_enter(%s, %s, 'node-1')", [writer, cell])
    if closed:
        with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"]) as owner:
            owner.execute("SET LOCAL app.platform = 'on'")
            owner.execute(
                'INSERT INTO journal_position (writer, segment, "offset", closed_at)'
                " VALUES (%s, 1, 1, now())",
                [writer],
            )


def tables(answer: Any) -> dict[str, list[list[str]]]:
    return {table.key: [list(row) for row in table.rows] for table in answer.context["tables"]}


@pytest.mark.django_db(transaction=True)
def test_what_redis_holds_is_on_the_page(
    house: House, operator: Client, redis_client: redis.Redis
) -> None:
    writer = fill(redis_client, organization=str(house.organization.id))
    enter(writer)
    answer: Any = operator.get("/admin/admission/")
    found = tables(answer)
    assert found["slots"] == [["pool-1", "8", "1", "3", "2 KB"]]
    ((pool, tier, calls, longest, who),) = found["queues"]
    assert (pool, tier, calls, who) == ("pool-1", "standard", "3", "acme (3)")
    assert float(longest.removesuffix(" s")) >= 8
    ((name, node, state, holds, held, _oldest),) = found["writers"]
    assert (name, node, holds, held) == (writer, "node-1", "2", "$3.00")
    assert state == "accounted for"
    assert EPOCH in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_who_is_waited_for_is_named(operator: Client, redis_client: redis.Redis) -> None:
    fill(redis_client, organization="x")
    enter("node-2_boot_9")
    enter("node-3_boot_9", closed=True)
    answer: Any = operator.get("/admin/admission/")
    assert "waits for node-2_boot_9" in answer.content.decode()
    states = {row[0]: row[2] for row in tables(answer)["writers"]}
    assert states["node-2_boot_9"] == "missing: prepaid calls wait for it"
    assert "node-3_boot_9" not in states


def test_an_empty_redis_is_said_to_be_one(operator: Client) -> None:
    page = operator.get("/admin/admission/").content.decode()
    assert "no gateway has called admission since Redis began" in page
    assert "Nothing waits." in page


def test_processes_and_those_that_went_silent(operator: Client, redis_client: redis.Redis) -> None:
    speak(redis_client, "node-1/0")
    speak(redis_client, "node-1/1", ago_seconds=90 * 60)
    speak(redis_client, "node-0/0", ago_seconds=30 * 86_400)
    redis_client.hset(presence_key(CELL), "node-1/2", b"of another release")
    found = tables(operator.get("/admin/gateways/"))
    assert [row[:4] for row in found["processes"]] == [
        ["node-1/0", "speaks", "10 minutes", "up"],
        ["node-1/1", "silent for 2 hours", "10 minutes", "up"],
    ]
    assert found["decisions"][0] == ["node-1/0", "4", "0", "replica-7", "2", "0"]
    assert found["journals"][0][1:] == ["node-1_boot_0", "nothing", "open"]


def test_the_same_as_csv_and_json(operator: Client, redis_client: redis.Redis) -> None:
    speak(redis_client, "=node/0")
    answer = operator.get("/admin/gateways/", {"format": "csv", "table": "processes"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(StringIO(answer.content.decode())))
    assert rows[0][:2] == ["Process", "State"]
    assert rows[1][0] == "'=node/0"  # a spreadsheet must not take it for a formula
    said = operator.get("/admin/gateways/", {"format": "json"}).json()
    assert said["cell"] == CELL
    assert said["processes"][0]["Process"] == "=node/0"
    assert said["facts"]["Streams"]["value"] == "5"


@pytest.mark.parametrize("page", ["admission", "gateways"])
def test_without_redis_the_page_says_so(operator: Client, settings: Settings, page: str) -> None:
    settings.REDIS_URL = "unix:///nowhere"
    admitted.client.cache_clear()
    try:
        answer = operator.get(f"/admin/{page}/")
    finally:
        admitted.client.cache_clear()
    assert answer.status_code == 503
    assert "Redis does not answer." in answer.content.decode()


@pytest.mark.parametrize("page", ["admission", "gateways"])
def test_these_pages_are_for_operators(house: House, owner: Client, page: str) -> None:
    assert owner.get(f"/admin/{page}/").status_code in {302, 403}
    assert Client().get(f"/admin/{page}/").status_code == 302
    operators = make_user("staff@tessera.example")
    operators.is_staff = True
    operators.save()
    assert signed_in(operators).post(f"/admin/{page}/").status_code == 405


def test_the_sidebar_leads_there_and_to_every_table(operator: Client) -> None:
    page = operator.get("/admin/").content.decode()
    for address in ("/admin/admission/", "/admin/gateways/", "/admin/tenants/plan/"):
        assert f'href="{address}"' in page
