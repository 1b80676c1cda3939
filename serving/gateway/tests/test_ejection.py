from __future__ import annotations

import pytest

from serving.gateway.ejection import (
    FIRST_PROBE_SECONDS,
    FORGIVEN_SECONDS,
    GOOD,
    LAST_PROBE_SECONDS,
    Failure,
    Health,
    after_failure,
    after_probe,
    after_success,
)
from serving.gateway.retries import CAPACITY, RATIO, START, RetryBudget

CERTAIN = [Failure.UNREACHABLE, Failure.SILENT, Failure.STALLED]
BAD_ANSWERS = [Failure.LATE, Failure.GARBAGE, Failure.ERROR]


def failed(
    failure: Failure,
    *,
    times: int = 1,
    others_open: int = 3,
    others: int = 3,
    health: Health = GOOD,
) -> Health:
    for _ in range(times):
        health = after_failure(health, failure, now=10.0, others_open=others_open, others=others)
    return health


@pytest.mark.parametrize("failure", CERTAIN)
@pytest.mark.parametrize("others_open", [0, 3])
def test_no_connection_and_no_answer_eject_at_once(failure: Failure, others_open: int) -> None:
    health = failed(failure, others_open=others_open)
    assert (health.reason, health.probe_at) == (failure, 10.0 + FIRST_PROBE_SECONDS)


def test_a_cut_ejects_unless_nobody_else_is_open() -> None:
    """F14: an engine that died in the middle of an answer gets no more requests."""
    assert failed(Failure.CUT).reason is Failure.CUT
    assert failed(Failure.CUT, others_open=0, times=20).is_open


@pytest.mark.parametrize("failure", BAD_ANSWERS)
def test_bad_answers_eject_an_outlier_only(failure: Failure) -> None:
    """One tenant's requests that an engine fails on never take a pool away from all others."""
    assert failed(failure, times=2).is_open
    assert failed(failure, times=3).reason is failure
    assert failed(failure, times=20, others_open=1).is_open
    assert failed(failure, times=20, others_open=0, others=0).is_open


def test_half_of_the_last_outcomes_is_enough_to_be_an_outlier() -> None:
    health = GOOD
    for _ in range(7):
        health = after_success(failed(Failure.ERROR, health=health))
    assert health.is_open
    assert not failed(Failure.ERROR, health=health).is_open
    for _ in range(16):
        health = after_success(health)
    assert health.failures == 0


def test_probes_come_at_growing_distances_until_one_succeeds() -> None:
    health = failed(Failure.UNREACHABLE)
    now, waits = 10.0, []
    for _ in range(8):
        now = health.probe_at
        health = after_probe(health, succeeded=False, now=now)
        waits.append(health.probe_at - now)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LAST_PROBE_SECONDS
    back = after_probe(health, succeeded=True, now=now)
    assert (back.is_open, back.opened_at, back.failures) == (True, now, 0)


def test_who_is_ejected_again_and_again_waits_longer_each_time() -> None:
    health, now, waits = GOOD, 10.0, []
    for _ in range(6):
        health = after_failure(health, Failure.SILENT, now=now, others_open=1, others=1)
        waits.append(health.probe_at - now)
        now = health.probe_at
        health = after_probe(health, succeeded=True, now=now)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    later = now + FORGIVEN_SECONDS + 1
    again = after_failure(health, Failure.SILENT, now=later, others_open=1, others=1)
    assert again.probe_at - later == FIRST_PROBE_SECONDS


def test_what_is_ejected_already_stays_as_it_is() -> None:
    health = failed(Failure.UNREACHABLE)
    assert failed(Failure.SILENT, health=health) is health


def test_a_sick_pool_gets_a_fifth_more_and_not_three_times_as_much() -> None:
    budget = RetryBudget(0.0)
    allowed = 0
    for _ in range(1000):
        budget.earn()
        allowed += budget.spend(0.0)
    assert allowed == pytest.approx(1000 * RATIO + START, abs=1)


def test_a_quiet_pool_may_retry_now_and_then_and_a_good_hour_saves_no_storm() -> None:
    budget = RetryBudget(0.0)
    while budget.spend(0.0):
        pass
    assert not budget.spend(0.5)
    assert budget.spend(2.0)
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend(2.0) for _ in range(1000)) == CAPACITY
