"""Decisions over plain values: no process is started here."""

from __future__ import annotations

import pytest

from supervisor.lifecycle import (
    LONGEST_DELAY_SECONDS,
    STEADY_SECONDS,
    Life,
    State,
    Step,
    decide,
    delay_seconds,
    exit_in_words,
    sleep_seconds,
)
from supervisor.parts import Health, Part

CRASH, SUCCESS = 1 << 8, 0


def life(name: str = "one", *, ensured: bool = False, **fields: object) -> Life:
    return Life(Part.read({"name": name, "argv": ["true"], **fields}), ensured=ensured)


def started(one: Life, *, now: float = 0.0) -> Life:
    one.begin(pid=100, now=now, at=now)
    return one


def running(one: Life) -> Life:
    started(one).ready(0.0)
    return one


def steps(*lives: Life, now: float = 0.0, stopping: bool = False) -> dict[str, Step]:
    decided = decide({one.part.name: one for one in lives}, now=now, stopping=stopping)
    return {one.part.name: step for step, one in decided}


def test_a_part_waits_for_what_it_needs() -> None:
    database, web = life("database"), life("web", needs=["database"])
    assert steps(database, web) == {"database": Step.START}
    running(database)
    assert steps(database, web) == {"web": Step.START}


def test_what_runs_once_satisfies_only_when_it_succeeded() -> None:
    migrate, web = life("migrate", once=True), life("web", needs=["migrate"])
    running(migrate)
    assert steps(migrate, web) == {}
    migrate.exited(SUCCESS, now=1.0)
    assert steps(migrate, web) == {"web": Step.START}

    again = started(life("migrate", once=True))
    again.exited(CRASH, now=1.0)
    assert again.state is State.FAILED
    assert steps(again, web) == {}


def test_with_a_health_check_ready_means_that_it_answered() -> None:
    web = started(life(health={"address": "tcp:127.0.0.1:1"}))
    assert steps(web, now=0.0) == {"one": Step.PROBE}
    web.probed(healthy=False, now=0.0)
    assert steps(web, now=0.05) == {}
    assert steps(web, now=0.2) == {"one": Step.PROBE}
    web.probed(healthy=True, now=0.2)
    assert steps(web, now=0.2) == {"one": Step.READY}


def test_without_one_it_is_ready_after_its_time() -> None:
    engine = started(life(ready_seconds=5.0))
    assert steps(engine, now=4.9) == {}
    assert steps(engine, now=5.0) == {"one": Step.READY}


def test_all_for_one_without_a_health_check_counts_who_lives_long() -> None:
    assert life(all_for_one=True).part.ready_seconds == 60.0
    checked = life(all_for_one=True, health={"address": "unix:/x"})
    assert checked.part.ready_seconds == 0.0
    assert checked.part.health == Health(address="unix:/x")


def test_crashes_in_a_row_wait_longer_and_a_steady_run_forgives() -> None:
    one = life()
    for failures in range(1, 4):
        started(one, now=0.0)
        one.exited(CRASH, now=1.0)
        assert (one.state, one.failures) == (State.BACKOFF, failures)
        assert one.retry_at == 1.0 + delay_seconds(failures)
    started(one, now=10.0).ready(15.0)
    one.exited(CRASH, now=15.0 + STEADY_SECONDS)
    assert one.failures == 1
    assert one.restarts == 3


def test_a_start_that_takes_long_and_fails_is_no_steady_run() -> None:
    one = life(health={"address": "unix:/x"})
    for failures in range(1, 4):
        started(one, now=0.0)
        one.exited(CRASH, now=2 * STEADY_SECONDS)
        assert one.failures == failures


def test_the_delay_grows_to_its_bound() -> None:
    delays = [delay_seconds(failures) for failures in range(1, 40)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_SECONDS


def test_a_part_that_crashed_starts_again_when_its_time_has_come() -> None:
    one = started(life())
    one.exited(CRASH, now=1.0)
    assert steps(one, now=1.05) == {}
    assert steps(one, now=1.1) == {"one": Step.START}


def test_stopping_goes_from_users_to_what_they_use() -> None:
    database = running(life("database"))
    gateway = running(life("gateway", needs=["database"], listen_index=0))
    engine = running(life("engine", ensured=True))
    everything = (database, engine, gateway)
    assert steps(*everything, stopping=True) == {"gateway": Step.SIGNAL}
    gateway.signal_sent(0.0)
    assert steps(*everything, stopping=True) == {}
    gateway.exited(SUCCESS, now=1.0)
    assert steps(*everything, stopping=True) == {"engine": Step.SIGNAL, "database": Step.SIGNAL}


def test_what_a_step_needed_is_kept_for_those_who_needed_the_step() -> None:
    database, migrate = running(life("database")), life("migrate", once=True, needs=["database"])
    started(migrate).exited(SUCCESS, now=1.0)
    web = running(life("web", needs=["migrate"]))
    assert steps(database, migrate, web, stopping=True) == {"web": Step.SIGNAL}


def test_who_does_not_stop_in_time_is_killed() -> None:
    one = running(life(stop_seconds=3.0))
    one.signal_sent(now=10.0)
    assert steps(one, now=12.9, stopping=True) == {}
    assert steps(one, now=13.0, stopping=True) == {"one": Step.KILL}


def test_stopping_ends_whoever_waits_and_starts_nobody() -> None:
    waiting, failed = life("waiting"), started(life("failed"))
    failed.exited(CRASH, now=0.0)
    assert steps(waiting, failed, now=99.0, stopping=True) == {
        "waiting": Step.END,
        "failed": Step.END,
    }


def test_one_that_leaves_is_stopped_at_once_and_then_ended() -> None:
    engine = running(life("engine", ensured=True))
    gateway = running(life("gateway", listen_index=0))
    engine.leaving = True
    assert steps(engine, gateway) == {"engine": Step.SIGNAL}
    engine.signal_sent(0.0)
    engine.exited(SUCCESS, now=1.0)
    assert steps(engine, gateway) == {"engine": Step.END}


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit 0"), (3 << 8, "exit 3"), (9, "killed by SIGKILL"), (40, "killed by signal 40")],
)
def test_an_end_is_told_in_words(status: int, words: str) -> None:
    assert exit_in_words(status) == words


def test_the_loop_sleeps_until_the_next_thing_is_due() -> None:
    one = started(life())
    one.exited(CRASH, now=0.0)
    assert sleep_seconds({"one": one}, now=0.0) == pytest.approx(0.1)
    assert sleep_seconds({}, now=0.0) > 1
