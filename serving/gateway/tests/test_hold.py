"""What admission is asked: bounds that hold, and the bearers of limits."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from serving.admission.values import (
    AdmissionRequest,
    Grant,
    Money,
    Queued,
    Reason,
    Refusal,
    Used,
)
from serving.contracts import Price
from serving.gateway import hold
from serving.gateway.api import client_seconds
from serving.gateway.errors import Busy
from serving.gateway.fields import Wanted, parse_chat, parse_completion
from serving.gateway.metrics import Metrics
from serving.gateway.principals import Limits, Principal
from serving.gateway.settle import UNUSED
from serving.gateway.tests.test_where import POOL, arm, directory, endpoint, principal, route
from serving.gateway.what import Target

NOVEMBER = 1_795_000_000.0  # 2026-11-18 UTC
PRICE = Price(version="1", input=100, cached_input=10, output=400)


def target(price: Price = PRICE) -> Target:
    priced = msgspec.structs.replace(route(arm()), price=price)
    made = directory(endpoint("a", "a"), routes=(priced,))
    return made.target(principal(), "model")


def chat(extra: str = "") -> Wanted:
    body = f'{{"model":"model","messages":[{{"role":"user","content":"Hi"}}]{extra}}}'
    return parse_chat(body.encode())


def asked(who: Principal, *, limit: int | None = 10) -> AdmissionRequest:
    return hold.admission_request(
        who, chat(), target(), grant_id="g", slots=4, limit=limit, queue_seconds=30, now=NOVEMBER
    )


def test_a_prompt_is_held_with_its_bytes_and_at_most_the_context() -> None:
    found = hold.demand(chat(), target(), 10)
    assert found.input_tokens == 100, "the context of the test's pool"
    assert (found.output_tokens, found.choices) == (10, 1)
    assert (found.input_nano, found.output_nano) == (100, 400)


def test_every_answer_of_every_prompt_is_held() -> None:
    wanted = parse_completion(b'{"model":"model","prompt":["a","b","c"],"n":2,"max_tokens":7}')
    found = hold.demand(wanted, target(), 7)
    assert (found.choices, found.output_tokens) == (6, 7)
    assert found.input_tokens == 300, "three contexts bound it, and the bytes are fewer"


def test_without_a_limit_the_context_is_the_bound() -> None:
    assert hold.demand(chat(), target(), None).output_tokens == 100


def test_the_dearer_class_of_input_is_held() -> None:
    odd = Price(version="1", input=1, cached_input=5, output=0)
    assert hold.demand(chat(), target(odd), 1).input_nano == 5


def test_a_prepaid_organization_pays_from_its_balance_with_or_without_limits() -> None:
    balance = Money(account="org:o", budget_nano=0, is_hard=True)
    [subject] = asked(principal(billing="prepaid")).subjects
    assert (subject.id, subject.money) == ("org:o", balance)
    limits = (Limits(scope="organization", id="o", requests_per_minute=5, budget_nano=3),)
    [subject] = asked(principal(billing="prepaid", limits=limits)).subjects
    assert (subject.requests_per_minute, subject.money) == (5, balance)


def test_budgets_are_monthly_and_hard_for_projects_and_keys() -> None:
    limits = (
        Limits(scope="organization", id="o", budget_nano=9),
        Limits(scope="project", id="p", budget_nano=8),
        Limits(scope="key", id="k", budget_nano=7, concurrency=2),
    )
    found = asked(principal(limits=limits)).subjects
    assert [subject.money for subject in found] == [
        Money(account="org:o:202611", budget_nano=9, is_hard=False),
        Money(account="project:p:202611", budget_nano=8, is_hard=True),
        Money(account="key:k:202611", budget_nano=7, is_hard=True),
    ]
    assert found[2].concurrency == 2


def test_who_has_no_limits_is_no_subject() -> None:
    assert asked(principal()).subjects == ()


@pytest.mark.parametrize(("granted", "limit"), [(10, 10), (4, 4)])
def test_what_the_balance_covers_goes_upstream(granted: int, limit: int) -> None:
    request = asked(principal())
    grant = Grant(grant_id="g", pool="pool", at=1, output_tokens=granted)
    assert hold.granted_limit(10, request, grant) == limit


def test_what_may_be_counted_is_what_is_held() -> None:
    wanted = parse_completion(b'{"model":"model","prompt":["a","b","c"],"n":2,"max_tokens":7}')
    request = hold.admission_request(
        principal(), wanted, target(), grant_id="g", slots=4, limit=7, queue_seconds=0, now=NOVEMBER
    )
    grant = Grant(grant_id="g", pool="pool", at=1, output_tokens=5)
    assert hold.most(request, grant) == (300, 30)


def test_a_whole_grant_without_a_limit_stays_without_one() -> None:
    request = asked(principal(), limit=None)
    grant = Grant(grant_id="g", pool="pool", at=1, output_tokens=100)
    assert hold.granted_limit(None, request, grant) is None


class Refusing:
    async def admit(self, request: AdmissionRequest) -> Refusal:
        return Refusal(reason=Reason.QUEUE_FULL, retry_after_seconds=3)

    def shrink(self, grant: Grant, input_tokens: int) -> None: ...
    def settle(self, grant: Grant, used: Used) -> None: ...


async def test_a_refusal_carries_its_reason_and_delay() -> None:
    metrics = Metrics()
    with pytest.raises(Busy) as caught:
        await hold.take(Refusing(), asked(principal()), model="model", metrics=metrics)
    assert metrics.snapshot(0.0).counters == {
        'tessera_gateway_refusals_total{reason="queue_full"}': 1
    }
    assert (caught.value.code, caught.value.retry_after_seconds) == ("queue_full", 3)


@pytest.mark.parametrize(
    ("client", "seconds"), [(None, 30.0), (600.0, 30.0), (10.0, 9.0), (0.5, 0.0)]
)
def test_nobody_waits_longer_than_its_client(client: float | None, seconds: float) -> None:
    assert hold.wait_seconds(30.0, client) == seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, None), (b"600", 600.0), (b"2.5", 2.5), (b"nan", None), (b"inf", None),
        (b"-1", None), (b"soon", None), (b"1" * 11, None),
    ],
)  # fmt: skip
def test_what_a_client_says_of_its_patience(said: bytes | None, seconds: float | None) -> None:
    assert client_seconds(said) == seconds


def test_a_pool_at_rest_is_a_target_where_nothing_else_answers() -> None:
    pools = (msgspec.structs.replace(POOL, id="resting", wakes=True), POOL)
    routes = (route(arm(pools=("resting", "pool"))),)
    awake = directory(endpoint("a", "a"), routes=routes, pools=pools)
    assert awake.target(principal(), "model").pool.id == "pool"
    alone = directory(routes=routes, pools=pools)
    assert alone.target(principal(), "model").pool.id == "resting"
    assert alone.slots("resting") == 0


class Queueing(Refusing):
    """Everybody waits; the test says for how long."""

    def __init__(self) -> None:
        self.queued: list[Queued] = []
        self.settled: list[tuple[str, Used]] = []

    async def admit(self, request: AdmissionRequest) -> Queued:  # type: ignore[override]
        granted: asyncio.Future[Grant | Refusal] = asyncio.get_running_loop().create_future()
        self.queued.append(Queued(grant_id=request.grant_id, position=1, granted=granted))
        return self.queued[-1]

    def settle(self, grant: Grant, used: Used) -> None:
        self.settled.append((grant.grant_id, used))


@pytest.mark.parametrize("is_granted", [True, False])
async def test_who_leaves_while_it_waits_keeps_nothing(*, is_granted: bool) -> None:
    """Also when the grant comes at the same moment."""
    admission, metrics = Queueing(), Metrics()
    taking = asyncio.create_task(
        hold.take(admission, asked(principal()), model="model", metrics=metrics)
    )
    await asyncio.sleep(0)
    [queued] = admission.queued
    if is_granted:
        queued.granted.set_result(Grant(grant_id="g", pool="pool", at=1, output_tokens=10))
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert queued.granted.cancelled() is not is_granted
    assert admission.settled == ([("g", UNUSED)] if is_granted else [])
