"""Prepaid balances and budgets: never overrun, and whole again after Redis lost everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from serving.admission.keys import admission_prefix
from serving.admission.tests.parts import (
    CELL,
    Process,
    StandInLedger,
    budget,
    granted,
    prepaid,
    refused,
    request,
    started,
    until,
    used,
)
from serving.admission.values import Grant, Reason, Subject, Used

PRICE = (1_000, 2_000)  # a call of 10 in, 20 out: 50,000 nano-USD
CALL = 50_000


@pytest.fixture
def ledger() -> StandInLedger:
    return StandInLedger(credits={"org:acme": 10 * CALL})


@pytest.fixture
async def process(
    redis_client: redis.Redis, redis_url: str, ledger: StandInLedger
) -> AsyncIterator[Process]:
    made = await started(redis_url, "writer", ledger=ledger)
    yield made
    await made.stop()


def account(client: redis.Redis, process: Process, name: str = "org:acme") -> dict[str, int]:
    key = f"{admission_prefix(CELL)}money:{process.admission.epoch}:account:{name}"
    fields: dict[Any, Any] = client.hgetall(key)
    return {field.decode(): int(value) for field, value in fields.items()}


async def test_a_call_is_held_by_its_bound_and_booked_by_its_cost(
    process: Process, redis_client: redis.Redis
) -> None:
    grant = await granted(process, request(1, subjects=prepaid(), price=PRICE))
    assert account(redis_client, process)["held"] == CALL
    process.admission.shrink(grant, 5)
    await process.admission.flush()
    assert account(redis_client, process)["held"] == CALL - 5 * 1_000
    process.admission.settle(grant, used(5, 10, cost_nano=25_000))
    await process.admission.flush()
    found = account(redis_client, process)
    assert (found["base"], found["spent"], found["held"]) == (10 * CALL, 25_000, 0)


async def test_the_output_limit_is_what_is_left_and_then_nothing_starts(process: Process) -> None:
    for n in range(9):
        await granted(process, request(n, subjects=prepaid(), price=PRICE))
    clamped = await granted(
        process, request("c", subjects=prepaid(), price=PRICE, output_tokens=100)
    )
    assert clamped.output_tokens == 20
    refusal = await refused(process, request("d", subjects=prepaid(), price=PRICE))
    assert (refusal.reason, refusal.subject) == (Reason.INSUFFICIENT_BALANCE, "org:acme")


async def test_the_tightest_account_clamps_and_says_whose_it_is(process: Process) -> None:
    subjects = (*prepaid(), budget(30_000))
    one = await granted(process, request(1, subjects=subjects, price=PRICE))
    assert one.output_tokens == 10
    refusal = await refused(process, request(2, subjects=subjects, price=PRICE))
    assert (refusal.reason, refusal.subject) == (Reason.BUDGET_EXCEEDED, "project:p")


async def test_a_soft_budget_lets_the_last_call_run_over(process: Process) -> None:
    subjects = (budget(60_000, is_hard=False),)
    grants = [await granted(process, request(n, subjects=subjects, price=PRICE)) for n in range(1)]
    await until(lambda: process.admission.is_money_ready)
    process.admission.settle(grants[0], used(10, 20, cost_nano=CALL))
    two = await granted(process, request("two", subjects=subjects, price=PRICE))
    await process.admission.flush()
    process.admission.settle(two, used(10, 20, cost_nano=CALL))
    await process.admission.flush()
    three = await process.admission.admit(request("three", subjects=subjects, price=PRICE))
    if isinstance(three, Grant):  # the account was not loaded before
        await process.admission.flush()
    refusal = await refused(process, request("four", subjects=subjects, price=PRICE))
    assert refusal.reason is Reason.BUDGET_EXCEEDED


async def test_a_free_model_needs_no_balance(process: Process, ledger: StandInLedger) -> None:
    ledger.credits["org:acme"] = 0
    await granted(process, request(1, subjects=prepaid()))


async def test_large_sums_are_exact(
    process: Process, redis_client: redis.Redis, ledger: StandInLedger
) -> None:
    ledger.credits["org:acme"] = 2**53 - 1
    grant = await granted(
        process, request(1, subjects=prepaid(), price=(10**9, 10**12), output_tokens=1_000)
    )
    assert account(redis_client, process)["held"] == 10 * 10**9 + 1_000 * 10**12
    process.admission.settle(grant, used(1, 1, cost_nano=10**15))
    await process.admission.flush()
    assert account(redis_client, process)["spent"] == 10**15


async def test_without_its_ledger_prepaid_waits_and_is_told(
    process: Process, ledger: StandInLedger
) -> None:
    await granted(process, request(1, subjects=prepaid(), price=PRICE))
    ledger.is_away = True
    other = request(2, subjects=prepaid("other"), price=PRICE)
    assert (await refused(process, other)).reason is Reason.BALANCE_UNAVAILABLE
    soft = (budget(1, is_hard=False),)
    await granted(process, request(3, subjects=soft, price=PRICE))
    assert process.admission.soft_unchecked == 1
    await granted(process, request(4, subjects=prepaid(), price=PRICE))  # it is loaded already


async def test_an_empty_redis_is_whole_again_when_everybody_has_announced_himself(
    process: Process, redis_client: redis.Redis, redis_url: str, ledger: StandInLedger
) -> None:
    other = await started(redis_url, "other", ledger=ledger)
    one = await granted(process, request(1, subjects=prepaid(), price=PRICE))
    two = await granted(other, request(2, subjects=prepaid(), price=PRICE))
    other.admission.settle(two, used(10, 20, cost_nano=CALL))
    await other.admission.flush()
    redis_client.flushall()
    await granted(process, request(3, subjects=prepaid(), price=PRICE))
    found = account(redis_client, process)
    assert (found["base"], found["spent"], found["held"]) == (10 * CALL, CALL, 2 * CALL)
    process.admission.settle(one, used(1, 1, cost_nano=3_000))
    await process.admission.flush()
    assert account(redis_client, process)["spent"] == CALL + 3_000
    await other.stop()


async def test_a_roster_that_is_not_whole_keeps_prepaid_waiting(
    process: Process, redis_client: redis.Redis, ledger: StandInLedger
) -> None:
    await granted(process, request(1, subjects=prepaid(), price=PRICE))
    ledger.living.append("dead")
    redis_client.flushall()
    refusal = await refused(process, request(2, subjects=prepaid(), price=PRICE))
    assert refusal.reason is Reason.BALANCE_UNAVAILABLE
    await granted(process, request(3))
    ledger.closed["dead"] = {"org:acme": 2 * CALL}
    await granted(process, request(4, subjects=prepaid(), price=PRICE))
    found = account(redis_client, process)
    assert (found["base"], found["held"]) == (8 * CALL, 2 * CALL)


async def test_a_dead_writers_holds_stay_until_its_journal_is_closed(
    process: Process, redis_client: redis.Redis, redis_url: str, ledger: StandInLedger
) -> None:
    dead = await started(redis_url, "dead", ledger=ledger)
    for n in range(4):
        await granted(dead, request(f"dead-{n}", subjects=prepaid(), price=PRICE))
    await granted(process, request(1, subjects=prepaid(), price=PRICE))
    await dead.stop()
    redis_client.delete(f"{admission_prefix(CELL)}alive:dead")
    assert account(redis_client, process)["held"] == 5 * CALL
    ledger.closed["dead"] = {"org:acme": 3 * CALL, "org:other": 7}
    await process.admission._epochs.close_silent()
    found = account(redis_client, process)
    assert (found["base"], found["spent"], found["held"]) == (7 * CALL, 0, CALL)
    await process.admission._epochs.close_silent()
    assert account(redis_client, process) == found


async def test_spending_of_accounts_without_a_limit_counts_once_they_have_one(
    process: Process, redis_client: redis.Redis
) -> None:
    grant = await granted(process, request(1, price=PRICE))
    await until(lambda: process.admission.is_money_ready)
    accounts = ("org:acme", "project:p:202611")
    process.admission.settle(
        grant, Used(input_tokens=1, output_tokens=1, cost_nano=CALL, accounts=accounts)
    )
    late = await granted(process, request(2, subjects=(budget(CALL + 14_000),), price=PRICE))
    assert late.output_tokens == 2


async def test_credits_arrive_by_deltas_in_order_or_the_account_is_read_again(
    process: Process, redis_client: redis.Redis, ledger: StandInLedger
) -> None:
    ledger.entries["org:acme"] = 3
    await granted(process, request(1, subjects=prepaid(), price=PRICE))
    admission = process.admission
    await admission.credit("org:acme", previous=3, entry=4, nano=CALL)
    await admission.credit("org:acme", previous=3, entry=4, nano=CALL)
    assert account(redis_client, process)["base"] == 11 * CALL
    ledger.credits["org:acme"], ledger.entries["org:acme"] = 13 * CALL, 6
    await admission.credit("org:acme", previous=5, entry=6, nano=CALL)
    assert "base" not in account(redis_client, process)
    await granted(process, request(2, subjects=prepaid(), price=PRICE))
    assert account(redis_client, process)["base"] == 13 * CALL


async def test_a_refusal_by_an_old_balance_reads_it_again(
    process: Process, redis_client: redis.Redis, ledger: StandInLedger
) -> None:
    ledger.credits["org:acme"] = 0
    subjects = prepaid()
    assert (await refused(process, request(1, subjects=subjects, price=PRICE))).reason is (
        Reason.INSUFFICIENT_BALANCE
    )
    ledger.credits["org:acme"] = CALL
    await refused(process, request(2, subjects=subjects, price=PRICE))
    key = f"{admission_prefix(CELL)}money:{process.admission.epoch}:account:org:acme"
    redis_client.hset(key, "at", 1)
    await granted(process, request(3, subjects=subjects, price=PRICE))
    ledger.is_away = True
    redis_client.hset(key, "at", 1)
    assert (await refused(process, request(4, subjects=subjects, price=PRICE))).reason is (
        Reason.INSUFFICIENT_BALANCE
    )


async def test_what_was_held_without_our_knowing_is_dropped_when_we_come_back(
    process: Process, redis_client: redis.Redis
) -> None:
    await granted(process, request(1, subjects=prepaid(), price=PRICE))
    asking = asyncio.create_task(
        process.admission.admit(request(2, subjects=prepaid(), price=PRICE))
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    process.link.close()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: process.link.is_up)
    await granted(process, request(3, subjects=prepaid(), price=PRICE))
    assert account(redis_client, process)["held"] == 2 * CALL


async def test_callers_who_leave_while_asking_hold_nothing(
    process: Process, redis_client: redis.Redis
) -> None:
    subjects = (*prepaid(), Subject(id="key:k", tokens_per_minute=1_000, concurrency=9))
    await granted(process, request("first", subjects=subjects, price=PRICE))
    for yields in range(12):
        asking = asyncio.create_task(
            process.admission.admit(request(yields, subjects=subjects, price=PRICE))
        )
        for _ in range(yields):
            await asyncio.sleep(0)
        asking.cancel()
        answer = (await asyncio.gather(asking, return_exceptions=True))[0]
        if isinstance(answer, Grant):
            process.admission.settle(answer, used())
    await process.admission.flush()
    assert account(redis_client, process)["held"] == CALL
    assert redis_client.zcard(f"{admission_prefix(CELL)}running:key:k") == 1
    assert redis_client.zcard(f"{admission_prefix(CELL)}slots:pool") == 1


async def test_of_two_hundred_calls_at_once_ten_start_where_ten_are_covered(
    process: Process, redis_client: redis.Redis, redis_url: str, ledger: StandInLedger
) -> None:
    """A13: at once, over two processes."""
    other = await started(redis_url, "other", ledger=ledger)
    await granted(other, request("first", subjects=prepaid("rich"), price=(0, 0)))
    asks = [request(n, slots=1_000, subjects=prepaid(), price=PRICE) for n in range(200)]
    answers = await asyncio.gather(
        *((process, other)[n % 2].admission.admit(ask) for n, ask in enumerate(asks))
    )
    assert sum(isinstance(answer, Grant) for answer in answers) == 10
    assert account(redis_client, process)["held"] == 10 * CALL
    await other.stop()
