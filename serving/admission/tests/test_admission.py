"""The script in a real server, and what happens without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from serving.admission.client import Admission
from serving.admission.link import RedisDown, RedisLink
from serving.admission.values import AdmissionRequest, Demand, Grant, Reason, Refusal, Used

USED = Used(input_tokens=0, output_tokens=0, cost_nano=0)
SLOTS = "tessera:admission:cell:slots:pool"


class Counting:
    """A link that counts its calls."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self.calls = 0

    @property
    def generation(self) -> int:
        return self._link.generation

    @property
    def run_id(self) -> str:
        return self._link.run_id

    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]:
        self.calls += 1
        return self._link.call(*arguments)


@pytest.fixture
async def link(redis_client: redis.Redis, redis_url: str) -> AsyncIterator[RedisLink]:
    made = RedisLink(redis_url, timeout_seconds=1.0)
    running = asyncio.create_task(made.run())
    await made.wait_up()
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def redis_calls(link: RedisLink) -> Counting:
    return Counting(link)


@pytest.fixture
def admission(redis_calls: Counting) -> Admission:
    return Admission(redis_calls, cell="cell", processes=2)


def request(number: int, *, slots: int = 3, pool: str = "pool") -> AdmissionRequest:
    return AdmissionRequest(
        grant_id=f"grant-{number}",
        pool=pool,
        slots=slots,
        demand=Demand(input_tokens=10, output_tokens=20, choices=1, input_nano=0, output_nano=0),
        subjects=(),
        tenant="acme",
    )


async def test_slots_are_granted_up_to_their_number_and_again_when_given_back(
    admission: Admission,
) -> None:
    answers = [await admission.admit(request(n)) for n in range(4)]
    assert [isinstance(answer, Grant) for answer in answers] == [True, True, True, False]
    assert answers[3] == Refusal(reason=Reason.POOL_FULL, retry_after_seconds=1.0)
    assert isinstance(answers[0], Grant)
    admission.settle(answers[0], USED)
    assert isinstance(await admission.admit(request(5)), Grant)


async def test_the_calls_of_one_tick_share_one_round_trip(
    admission: Admission, redis_calls: Counting
) -> None:
    await admission.admit(request(0))
    redis_calls.calls = 0
    answers = await asyncio.gather(*(admission.admit(request(n)) for n in range(1, 51)))
    assert redis_calls.calls == 1
    assert sum(isinstance(answer, Grant) for answer in answers) == 2


async def test_many_processes_never_grant_more_than_there_is(redis_calls: Counting) -> None:
    processes = [Admission(redis_calls, cell="cell", processes=4) for _ in range(4)]
    asks = [
        process.admit(request(index * 100 + n, slots=10))
        for index, process in enumerate(processes)
        for n in range(25)
    ]
    answers = await asyncio.gather(*asks)
    assert sum(isinstance(answer, Grant) for answer in answers) == 10


async def test_settling_twice_gives_back_once(
    admission: Admission, redis_client: redis.Redis
) -> None:
    one = await admission.admit(request(1))
    await admission.admit(request(2))
    assert isinstance(one, Grant)
    admission.settle(one, USED)
    admission.settle(one, USED)
    await admission.flush()
    assert redis_client.zcard(SLOTS) == 1
    assert admission.held == 1


async def test_a_caller_who_leaves_while_waiting_takes_nothing_along(
    admission: Admission, redis_client: redis.Redis
) -> None:
    for yields in range(6):
        asking = asyncio.create_task(admission.admit(request(yields)))
        for _ in range(yields):
            await asyncio.sleep(0)
        asking.cancel()
        answer = (await asyncio.gather(asking, return_exceptions=True))[0]
        if isinstance(answer, Grant):
            admission.settle(answer, USED)
    await admission.flush()
    assert redis_client.zcard(SLOTS) == 0


async def test_leases_lapse_and_renewal_enters_what_was_lost(
    admission: Admission, redis_client: redis.Redis
) -> None:
    for n in range(3):
        await admission.admit(request(n))
    redis_client.zadd(SLOTS, {"grant-0": 1, "grant-1": 1})
    assert isinstance(await admission.admit(request(7)), Grant)
    redis_client.flushall()
    await admission.renew()
    assert redis_client.zcard(SLOTS) == 4
    now = redis_client.time()[0]
    assert redis_client.zcount(SLOTS, (now + 25) * 1000, (now + 31) * 1000) == 4


async def test_time_is_redis_own(redis_calls: Counting, redis_client: redis.Redis) -> None:
    skewed = Admission(redis_calls, cell="cell", processes=1, clock=lambda: 5.0)
    grant = await skewed.admit(request(1))
    assert isinstance(grant, Grant)
    assert abs(grant.at / 1e6 - redis_client.time()[0]) < 2


async def test_a_forgotten_script_is_sent_again(
    admission: Admission, redis_client: redis.Redis
) -> None:
    await admission.admit(request(1))
    redis_client.script_flush()
    answers = await asyncio.gather(*(admission.admit(request(n)) for n in (2, 3)))
    assert all(isinstance(answer, Grant) and not answer.is_local for answer in answers)


@pytest.mark.parametrize("trouble", ["away", "refusing"])
async def test_without_redis_each_process_grants_its_own_share_and_counts(
    redis_calls: Counting, redis_client: redis.Redis, trouble: str
) -> None:
    server = Away() if trouble == "away" else redis_calls
    if trouble == "refusing":
        redis_client.config_set("min-replicas-to-write", 1)
    try:
        admission = Admission(server, cell="cell", processes=2)
        answers = [await admission.admit(request(n, slots=6)) for n in range(4)]
    finally:
        redis_client.config_set("min-replicas-to-write", 0)
    assert [isinstance(answer, Grant) for answer in answers] == [True, True, True, False]
    assert answers[3] == Refusal(reason=Reason.POOL_FULL, retry_after_seconds=1.0)
    assert (admission.local_admissions, admission.local_refusals) == (3, 1)
    assert isinstance(answers[0], Grant)
    assert answers[0].is_local
    admission.settle(answers[0], USED)
    assert isinstance(await admission.admit(request(9, slots=6)), Grant)


async def test_a_pool_without_slots_grants_nothing_locally_either() -> None:
    answer = await Admission(Away(), cell="cell", processes=2).admit(request(1, slots=0))
    assert isinstance(answer, Refusal)


class Away:
    generation = 0
    run_id = ""

    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]:
        raise RedisDown("away")
