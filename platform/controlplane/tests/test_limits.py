"""Limits with what is used of them: the sums, and what Redis holds read as admission wrote it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import redis
from django.test import Client
from pytest_django import Settings

from billing.models import BalanceEntry
from billing.selectors import Balance
from controlplane import admitted
from controlplane.admitted import AccountUse, SubjectUse
from controlplane.limits import (
    BalanceNow,
    Meter,
    balance_now,
    bearer_now,
    known,
    limits_now,
    month_end,
)
from kernel.usage import key_account, organization_account
from serving.admission.keys import admission_prefix
from tenants.models import Billing, Organization, Role
from tenants.scope import organization_scope
from tenants.selectors import Bearer
from tenants.services import billing_set, key_limits_set, quota_set
from tenants.tests.factories import SYSTEM, make_key, make_member, make_organization

DOLLAR = 10**9
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BEARER = Bearer(
    scope="project",
    id=UUID(int=1),
    name="Default",
    requests_per_minute=600,
    tokens_per_minute=None,
    concurrency=4,
    budget_nano=10 * DOLLAR,
)


def test_a_minute_that_is_half_full_leaves_half() -> None:
    use = SubjectUse(requests_micros=30_000_000, tokens_micros=1, running=3)
    shown = bearer_now(BEARER, use, AccountUse())
    assert shown.requests == Meter(limit=600, used=300, reset_seconds=30.0)
    assert shown.tokens is None
    assert shown.concurrency == Meter(limit=4, used=3)
    assert shown.concurrency.remaining == 1


def test_a_budget_is_used_by_what_was_spent_before_and_now_and_what_is_held() -> None:
    account = AccountUse(base=-2 * DOLLAR, spent=DOLLAR, held=DOLLAR // 2)
    budget = bearer_now(BEARER, SubjectUse(), account).budget
    assert budget is not None
    assert (budget.used, budget.remaining) == (3_500_000_000, 6_500_000_000)
    assert budget.share == 0.35


def test_what_cannot_be_read_is_not_said_to_be_unused() -> None:
    shown = bearer_now(BEARER, None, None)
    assert shown.requests == Meter(limit=600, used=None)
    assert shown.requests.remaining is None
    assert shown.budget is not None
    assert shown.budget.used is None


@pytest.mark.parametrize(
    ("limit", "used", "share"), [(0, 0, 1.0), (4, 9, 1.0), (4, 1, 0.25), (4, None, 0.0)]
)
def test_a_share_is_never_more_than_all(limit: int, used: int | None, share: float) -> None:
    assert Meter(limit=limit, used=used).share == share


@pytest.mark.parametrize(
    ("at", "end"),
    [
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_months_end_in_utc(at: datetime, end: datetime) -> None:
    assert month_end(at) == end


@pytest.fixture
def acme(settings: Settings) -> Organization:
    settings.TESSERA_CELL = "cell-of-this-test"
    return make_organization("acme")


@pytest.mark.django_db
def test_what_admission_holds_is_read(acme: Organization, redis_client: redis.Redis) -> None:
    key = make_key(acme).key
    quota_set(acme.id, caller=SYSTEM, limits={"budget_nano": 50 * DOLLAR})
    key_limits_set(acme.id, key.id, caller=SYSTEM, limits={"concurrency": 4, "budget_nano": DOLLAR})
    prefix = admission_prefix("cell-of-this-test")
    seconds, micros = redis_client.time()
    now = seconds * 1_000_000 + micros
    redis_client.set(f"{prefix}requests:org:{acme.id}", now + 30_000_000)
    redis_client.set(f"{prefix}tokens:org:{acme.id}", now - 1)
    leases = {"lapsed": now // 1000 - 1, "one": now // 1000 + 9_000, "two": now // 1000 + 9_000}
    redis_client.zadd(f"{prefix}running:key:{key.id}", leases)
    redis_client.set(f"{prefix}epoch", "1-x-1")
    money = f"{prefix}money:1-x-1:account:"
    spent: dict[Any, Any] = {"base": -DOLLAR, "spent": 2 * DOLLAR, "held": DOLLAR}
    redis_client.hset(money + organization_account(str(acme.id), "202611"), mapping=spent)
    redis_client.hset(money + key_account(str(key.id), "202611"), mapping={"base": 0, "held": 5})
    shown = limits_now(acme.id, at=NOW)
    assert shown.is_live
    organization, (of_key,) = shown.organization, shown.keys
    assert organization.requests is not None
    assert organization.requests.used == pytest.approx(1_500, abs=50)
    assert organization.tokens == Meter(limit=3_000_000, used=0, reset_seconds=0.0)
    assert organization.budget == Meter(limit=50 * DOLLAR, used=4 * DOLLAR)
    assert of_key.concurrency == Meter(limit=4, used=2)
    assert of_key.budget == Meter(limit=DOLLAR, used=5)


def test_an_account_nobody_has_called_on_is_as_postgresql_says() -> None:
    assert known(AccountUse(), 7) == AccountUse(base=-7)
    loaded = AccountUse(base=-9, spent=1)
    assert known(loaded, 7) == loaded


@pytest.mark.parametrize(
    ("account", "spent", "held"),
    [
        (None, 30, 0),
        (AccountUse(), 30, 0),
        (AccountUse(base=80, spent=15, held=5), 35, 5),  # ahead of what is settled
    ],
)
def test_a_balance_is_as_new_as_admission_knows_it(
    account: AccountUse | None, spent: int, held: int
) -> None:
    shown = balance_now(Balance(credited_nano=100, spent_nano=30), account)
    assert (shown.spent_nano, shown.held_nano) == (spent, held)
    assert shown.available_nano == 100 - spent - held


@pytest.mark.django_db
def test_who_pays_first_sees_a_balance(acme: Organization, redis_client: redis.Redis) -> None:
    billing_set(acme.id, caller=SYSTEM, billing=Billing.PREPAID)
    with organization_scope(acme.id):
        BalanceEntry.objects.create(
            organization=acme, nano=5 * DOLLAR, reason="test", actor="test", operation="1"
        )
    shown = limits_now(acme.id, at=NOW)
    assert shown.balance == BalanceNow(credited_nano=5 * DOLLAR, spent_nano=0, held_nano=0)
    client = Client()
    client.force_login(make_member(acme, Role.BILLING).user)
    assert client.get("/api/v1/limits").json()["balance"]["available_nano"] == 5 * DOLLAR


@pytest.mark.django_db
def test_without_redis_limits_are_shown_all_the_same(
    acme: Organization, settings: Settings
) -> None:
    settings.REDIS_URL = "unix:///nowhere"
    admitted.client.cache_clear()
    try:
        shown = limits_now(acme.id, at=NOW)
    finally:
        admitted.client.cache_clear()
    assert not shown.is_live
    assert shown.organization.requests == Meter(limit=3_000, used=None)


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role)
def test_everybody_who_sees_usage_sees_limits_through_rest(
    acme: Organization, redis_client: redis.Redis, role: Role
) -> None:
    key = make_key(acme).key
    key_limits_set(acme.id, key.id, caller=SYSTEM, limits={"budget_nano": DOLLAR})
    client = Client()
    client.force_login(make_member(acme, role).user)
    answer = client.get("/api/v1/limits")
    assert answer.status_code == 200, json.loads(answer.content)
    shown = answer.json()
    assert (shown["live"], shown["tier"], shown["billing"]) == (True, "standard", "postpaid")
    assert shown["organization"]["requests_per_minute"]["remaining"] == 3_000
    assert shown["projects"][0]["requests_per_minute"] is None
    (limited,) = shown["keys"]
    assert (limited["id"], limited["budget"]["remaining_nano"]) == (str(key.id), DOLLAR)
    assert limited["budget"]["hard"]
    assert client.get("/api/v1/limits?organization=globex").status_code == 404
