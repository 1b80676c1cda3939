"""Requests and tokens per minute, concurrency: over processes, corrected, never taken by halves."""

from __future__ import annotations

import asyncio

import pytest
import redis

from serving.admission.tests.parts import (
    Process,
    granted,
    processes,
    refused,
    request,
    started,
    used,
)
from serving.admission.values import Grant, Reason, Subject


@pytest.fixture
async def process(redis_client: redis.Redis, redis_url: str) -> object:
    made = await started(redis_url, "writer")
    yield made
    await made.stop()


def key(**limits: int) -> tuple[Subject, ...]:
    return (Subject(id="key:k", **limits),)  # type: ignore[arg-type]


async def test_requests_pass_up_to_the_limit_and_the_rest_is_told_when_to_come_back(
    process: Process,
) -> None:
    subjects = key(requests_per_minute=3)
    grants = [await granted(process, request(n, subjects=subjects)) for n in range(3)]
    allowance = grants[1].allowance
    assert (allowance.limit_requests, allowance.remaining_requests) == (3, 1)
    assert allowance.limit_tokens is None
    assert 39 < (allowance.reset_requests_seconds or 0) <= 40
    refusal = await refused(process, request(4, subjects=subjects))
    assert refusal.reason is Reason.REQUESTS_PER_MINUTE
    assert refusal.subject == "key:k"
    assert 19 < refusal.retry_after_seconds <= 20
    assert refusal.allowance.remaining_requests == 0


async def test_tokens_are_held_by_the_bound_shrunk_and_settled(process: Process) -> None:
    subjects = key(tokens_per_minute=1000)
    one = await granted(process, request(1, subjects=subjects, input_tokens=800, output_tokens=150))
    big = request(2, subjects=subjects, input_tokens=800, output_tokens=50)
    assert (await refused(process, big)).reason is Reason.TOKENS_PER_MINUTE
    process.admission.shrink(one, 100)
    assert (await refused(process, big)).reason is Reason.TOKENS_PER_MINUTE
    process.admission.settle(one, used(100, 20))
    two = await granted(process, big)
    assert two.allowance.remaining_tokens is not None
    assert 20 <= two.allowance.remaining_tokens <= 35  # a second gives 17 back


async def test_a_call_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_off(
    process: Process,
) -> None:
    subjects = key(tokens_per_minute=100)
    one = await granted(process, request(1, subjects=subjects, input_tokens=500))
    process.admission.settle(one, used(300, 0))
    refusal = await refused(process, request(2, subjects=subjects, input_tokens=10))
    assert 130 < refusal.retry_after_seconds <= 140


async def test_a_limit_of_nothing_lets_nothing_in(process: Process) -> None:
    for limits in ({"requests_per_minute": 0}, {"tokens_per_minute": 0}, {"concurrency": 0}):
        assert (await refused(process, request(1, subjects=key(**limits)))).subject == "key:k"


async def test_nothing_is_taken_of_the_others_when_one_refuses(
    process: Process, redis_client: redis.Redis
) -> None:
    organization = Subject(
        id="org:o", requests_per_minute=100, tokens_per_minute=10_000, concurrency=5
    )
    subjects = (organization, Subject(id="key:k", concurrency=0))
    refusal = await refused(process, request(1, subjects=subjects))
    assert (refusal.reason, refusal.subject) == (Reason.CONCURRENCY, "key:k")
    names = {bytes(name).decode().split(":", 3)[3] for name in redis_client.scan_iter()}
    assert not {name for name in names if name.startswith(("requests", "tokens", "running"))}
    assert not {name for name in names if name.startswith("slots")}


async def test_concurrency_is_given_back(process: Process) -> None:
    subjects = key(concurrency=1)
    one = await granted(process, request(1, subjects=subjects))
    assert (await refused(process, request(2, subjects=subjects))).reason is Reason.CONCURRENCY
    process.admission.settle(one, used())
    await granted(process, request(3, subjects=subjects))


@pytest.mark.parametrize("limit", [7, 1000, 100_000])
async def test_four_processes_let_pass_the_limit_and_not_one_more(
    redis_client: redis.Redis, redis_url: str, limit: int
) -> None:
    subjects = key(tokens_per_minute=limit)
    size = max(1, limit // 100)
    async with processes(redis_url, 4) as cell:
        started_at = redis_client.time()
        answers = await asyncio.gather(
            *(
                cell[n % 4].admission.admit(
                    request(n, slots=1000, subjects=subjects, input_tokens=size, output_tokens=0)
                )
                for n in range(200)
            )
        )
        ended_at = redis_client.time()
    passed = sum(isinstance(answer, Grant) for answer in answers) * size
    seconds = ended_at[0] - started_at[0] + (ended_at[1] - started_at[1]) / 1e6
    assert passed <= limit * (1 + seconds / 60)
    assert passed >= limit * 0.99 - size


async def test_a_limit_survives_a_flush(process: Process, redis_client: redis.Redis) -> None:
    subjects = key(requests_per_minute=2)
    await granted(process, request(1, subjects=subjects))
    await granted(process, request(2, subjects=subjects))
    redis_client.flushall()
    process.admission.beat(0)
    await process.admission.flush()
    await process.admission.flush()
    assert (await refused(process, request(3, subjects=subjects))).reason is (
        Reason.REQUESTS_PER_MINUTE
    )
