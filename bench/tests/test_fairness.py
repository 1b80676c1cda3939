"""The fairness benchmark: the same calls for every way, and the queue it measures is the real one."""

from __future__ import annotations

import random

import redis

from bench.fairness import (
    FairQueue,
    FirstComeFirstServed,
    Scheduler,
    Seen,
    simulate,
    traffic,
)

SLOTS, SECONDS = 4, 40.0


def one_size(_: random.Random) -> tuple[int, int]:
    return 100, 50


def played(scheduler: Scheduler) -> Seen:
    calls = traffic({"calm": 4.0, "loud": 12.0}, seconds=SECONDS, shape=one_size)
    return simulate(calls, scheduler, seconds=SECONDS)


def test_calls_are_drawn_once_for_every_way() -> None:
    first, second = (
        traffic({"a": 2.0, "b": 1.0}, seconds=SECONDS, shape=one_size) for _ in range(2)
    )
    assert first == second
    assert [call.at for call in first] == sorted(call.at for call in first)


def test_tenants_that_wait_get_the_same_whatever_they_send(redis_client: redis.Redis) -> None:
    ours, fcfs = played(FairQueue(SLOTS, server=redis_client)), played(FirstComeFirstServed(SLOTS))
    assert ours.difference() <= 2 * 2 * SLOTS * 150
    assert fcfs.difference() > 4 * ours.difference()
    total = [sum(seen.samples[-1].values()) for seen in (ours, fcfs)]
    assert abs(total[0] - total[1]) < 0.05 * total[1]  # nobody's slot stands empty for it
