"""Waiting for a slot, over processes: order, claims, ends, and Redis going away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from serving.admission.batch import QueueBounds
from serving.admission.client import Admission
from serving.admission.keys import admission_prefix
from serving.admission.tests.parts import (
    CELL,
    Process,
    granted,
    processes,
    queued,
    refused,
    request,
    until,
    used,
)
from serving.admission.values import (
    AdmissionRequest,
    Grant,
    Queued,
    Reason,
    Refusal,
    Subject,
)

PREFIX = admission_prefix(CELL)


@pytest.fixture
async def cell(redis_client: redis.Redis, redis_url: str) -> AsyncIterator[list[Process]]:
    async with processes(redis_url, 2) as found:
        yield found


def waiting(name: str | int, *, slots: int = 1) -> AdmissionRequest:
    return request(name, slots=slots, wait_seconds=20.0)


async def test_a_slot_goes_to_who_waits_whichever_process_that_is(cell: list[Process]) -> None:
    here, there = cell
    first = await granted(here, waiting(1))
    second = await queued(there, waiting(2))
    third = await queued(here, waiting(3))
    assert (second.position, third.position) == (1, 2)
    here.admission.settle(first, used())
    got = await asyncio.wait_for(second.granted, 5)
    assert isinstance(got, Grant)
    assert not third.granted.done()
    there.admission.settle(got, used())
    assert isinstance(await asyncio.wait_for(third.granted, 5), Grant)
    assert (here.admission.waiting, there.admission.waiting) == (0, 0)


async def test_who_comes_later_does_not_pass_those_who_wait(cell: list[Process]) -> None:
    here, there = cell
    await queued(here, waiting(1, slots=0))
    assert (await refused(there, request(2, slots=0))).reason is Reason.POOL_FULL
    assert isinstance(await there.admission.admit(waiting(3, slots=1)), Queued)


async def test_a_pool_at_zero_waits_for_its_first_replica(cell: list[Process]) -> None:
    here, _ = cell
    first = await queued(here, waiting(1, slots=0))
    second = await queued(here, waiting(2, slots=0))
    here.admission.offer("pool", 1)
    assert isinstance(await asyncio.wait_for(first.granted, 5), Grant)
    assert not second.granted.done()


async def test_while_premium_calls_come_some_slots_are_kept_for_the_next(
    cell: list[Process],
) -> None:
    here, there = cell
    here.admission.settle(await granted(here, request("gone", slots=16, tier="premium")), used())
    for number in range(14):
        await granted(here, request(number, slots=16))
    others = [await queued(there, waiting(100 + number, slots=16)) for number in range(3)]
    begun = [
        await granted(there, request(200 + number, slots=16, tier="premium")) for number in range(2)
    ]
    last = await queued(there, request(202, slots=16, tier="premium", wait_seconds=20.0))
    there.admission.settle(begun[0], used())
    assert isinstance(await asyncio.wait_for(last.granted, 5), Grant)
    assert not any(one.granted.done() for one in others)


async def test_without_premium_calls_every_slot_is_everybody_s(cell: list[Process]) -> None:
    here, _ = cell
    for number in range(16):
        await granted(here, request(number, slots=16))
    await queued(here, waiting(16, slots=16))


async def test_waiting_ends_in_time_and_gives_everything_back(
    cell: list[Process], redis_client: redis.Redis
) -> None:
    here, _ = cell
    limits = (Subject(id="key:k", requests_per_minute=1, tokens_per_minute=50, concurrency=1),)
    one = request(1, slots=0, wait_seconds=0.05, subjects=limits)
    answer = await (await queued(here, one)).granted
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.QUEUE_TIMEOUT
    two = await queued(here, request(2, slots=0, wait_seconds=9, subjects=limits))
    two.granted.cancel()
    await asyncio.sleep(0)
    await here.admission.flush()
    assert isinstance(await here.admission.admit(request(3, subjects=limits)), Grant)
    assert redis_client.exists(f"{PREFIX}queue:pool:waiters") == 0


async def test_a_grant_that_its_process_does_not_claim_goes_to_the_next(
    cell: list[Process], redis_client: redis.Redis
) -> None:
    here, there = cell
    first = await granted(here, waiting(1))
    dead = await queued(there, waiting(2))
    await there.stop()
    third = await queued(here, waiting(3))
    here.admission.settle(first, used())
    await here.admission.flush()
    assert redis_client.zrange(f"{PREFIX}slots:pool", 0, -1) == [b"grant-2"]
    redis_client.zadd(f"{PREFIX}slots:pool", {"grant-2": 1})
    here.admission.beat(0)
    assert isinstance(await asyncio.wait_for(third.granted, 5), Grant)
    assert not dead.granted.done()


async def test_silent_processes_are_passed_over(
    cell: list[Process], redis_client: redis.Redis
) -> None:
    here, there = cell
    first = await granted(here, waiting(1))
    await queued(there, waiting(2))
    await there.stop()
    redis_client.delete(f"{PREFIX}alive:writer-1")
    third = await queued(here, waiting(3))
    here.admission.settle(first, used())
    assert isinstance(await asyncio.wait_for(third.granted, 1), Grant)


async def test_the_queue_is_bounded_by_count_bytes_and_tenant(
    redis_url: str, cell: list[Process]
) -> None:
    bounds = QueueBounds(waiters=8, bytes=1_000, tenant_share=0.25)
    small = Admission(cell[0].link, cell=CELL, processes=1, writer="small", bounds=bounds)
    process = Process(small, cell[0].link, "small")
    for n in range(2):
        await queued(process, waiting(n, slots=0))
    assert (await refused(process, waiting("third", slots=0))).reason is Reason.QUEUE_FULL
    heavy = request("heavy", slots=0, tenant="b", wait_seconds=9, body_bytes=251)
    assert (await refused(process, heavy)).reason is Reason.QUEUE_FULL
    for n, tenant in enumerate("cd"):
        free = request(f"f{n}", slots=0, tenant=tenant, wait_seconds=9, tier="free")
        await queued(process, free)
    last = request("f", slots=0, tenant="e", wait_seconds=9, tier="free")
    assert (await refused(process, last)).reason is Reason.QUEUE_FULL  # half is for those above
    premium = request("p", slots=0, tenant="e", wait_seconds=9, tier="premium")
    await queued(process, premium)


async def test_waiters_survive_a_flush_in_their_order(
    cell: list[Process], redis_client: redis.Redis
) -> None:
    here, there = cell
    first = await granted(here, waiting(1))
    second = await queued(there, waiting(2))
    third = await queued(here, waiting(3))
    redis_client.flushall()
    for process in cell:
        process.admission.beat(0)
    await until(lambda: redis_client.hlen(f"{PREFIX}queue:pool:waiters") == 2)
    assert redis_client.zcard(f"{PREFIX}slots:pool") == 1
    here.admission.settle(first, used())
    assert isinstance(await asyncio.wait_for(second.granted, 5), Grant)
    assert not third.granted.done()


async def test_who_waits_when_redis_goes_is_let_in_on_our_share_or_told(
    cell: list[Process],
) -> None:
    here, _ = cell
    holders = [await granted(here, waiting(f"h{n}", slots=4)) for n in range(4)]
    waiters = [await queued(here, waiting(n, slots=4)) for n in range(2)]
    for holder in holders[:3]:
        here.admission._holdings.calls.pop(holder.grant_id)
        here.admission._share.ended("pool", here.admission._prepared.of(()))
    here.tasks[0].cancel()
    await asyncio.sleep(0)
    answers = await asyncio.gather(
        *(here.admission.admit(waiting(f"x{n}", slots=0)) for n in range(2))
    )
    assert all(isinstance(answer, Refusal) for answer in answers)
    got = [await asyncio.wait_for(waiter.granted, 5) for waiter in waiters]
    assert isinstance(got[0], Grant)
    assert got[0].is_local
    assert isinstance(got[1], Refusal)
    assert got[1].reason is Reason.POOL_FULL
