"""What the longer benchmarks make of what they saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import memory
from bench.load.stamped import Delays
from bench.load.trace import Ask, read, window
from bench.memory import growth_percent
from bench.overrun import overrun_rows
from bench.spike import TIERS, Call, Effort, seen, spike_rows, tier_of, traffic
from bench.streams import Crowd, Seen, crowd_rows
from bench.trace import Found, trace_rows
from bench.ways import Way, Ways


def way(name: str) -> Way:
    return Way(name, f"unix:{name}", "key", ())


WAYS = Ways(way("engine"), way("gateway"), way("nginx/1"))


def test_a_crowd_is_judged_by_what_the_gateway_adds() -> None:
    seen = {
        "engine": Seen(1.0, 2.0, 5.0, 10.0),
        "gateway": Seen(1.5, 13.0, 39.0, 30.0),
        "nginx/1": Seen(1.1, 3.0, 18.0, 15.0),
    }
    rows = crowd_rows(WAYS, seen, Crowd("slow", 5000, 1.0, 1.0, 1.0))
    assert [(row.value, row.reference_value, row.met) for row in rows] == [
        (2.0, None, None),
        (39.0, 18.0, True),
        (30.0, 15.0, None),
        (0.5, pytest.approx(0.1), None),
        (11.0, 1.0, False),
    ]


def test_one_failure_in_a_replay_is_too_many() -> None:
    quiet = Found(100, 0, 50.0, 1.0, 2.0, 3.0, 0.1)
    broken = Found(100, 1, 50.0, 1.0, 2.0, 3.0, 0.1)
    rows = trace_rows(WAYS, {"engine": quiet, "gateway": broken, "nginx/1": quiet}, 10.0)
    failures = next(row for row in rows if row.name.endswith("failures"))
    assert (failures.value, failures.met) == (1, False)


@pytest.mark.parametrize(
    ("sizes", "percent"),
    [
        ([50, 80, 100, 100, 100, 100, 100, 100, 100], 0.0),  # warming up does not count
        ([100, 100, 100, 100, 101, 102, 103, 104, 105], 100.0),  # 1 % a round, 100 rounds
    ],
)
def test_growth_is_the_slope_after_warming_up(sizes: list[int], percent: float) -> None:
    effort = memory.Effort(rounds=9, requests=10_000, hung_up=1_000)
    assert growth_percent(sizes, effort) == pytest.approx(percent)


def test_quantiles_are_of_chunks_that_were_counted() -> None:
    delays = Delays()
    assert delays.quantile(0.99) == 0.0
    delays.values.extend(float(value) for value in range(100))
    assert (delays.quantile(0.5), delays.quantile(0.99)) == (50.0, 99.0)


def test_the_trace_is_read_and_sped_up(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.6805900,396,109\n"
        "2023-11-16 18:16:46.6805900,91,16\n"
    )
    assert window(read(path), speed=10.0, seconds=1.0) == [Ask(0.0, 374, 44), Ask(0.4, 396, 109)]


def test_a_spike_follows_the_calm_and_every_tier_has_its_share() -> None:
    asks = [Ask(float(number), 1, 1) for number in range(400)]
    effort = Effort(speed=1.0, slots=1, calm_seconds=10.0, spike_seconds=20.0, factors=(3.0,))
    made = traffic(asks, effort, 3.0)
    assert [is_spike for _, is_spike in made] == [False] * 10 + [True] * 60
    assert [ask.at for ask, _ in made[9:12]] == [9.0, 10.0, pytest.approx(10.0 + 1 / 3)]
    tiers = [tier_of(number) for number in range(100)]
    assert [tiers.count(tier) for tier in TIERS] == [10, 40, 50]


def test_a_spike_is_judged_by_premiums_aim_and_by_the_order_of_refusals() -> None:
    calls = [Call("premium", True, waited_ms=100.0, outcome="answered")] * 20
    calls += [Call("standard", True, outcome="refused")] * 2
    calls += [Call("free", True, waited_ms=5.0, outcome="answered")] * 2
    calls += [Call("free", False, outcome="failed")]  # before the spike
    rows = spike_rows({tier: seen(calls, tier) for tier in TIERS}, 3.0, judged=True)
    assert [(row.value, row.met) for row in rows] == [
        (100.0, True),
        (0.0, None),
        (5.0, None),
        (0.0, True),
        (100.0, None),
        (0.0, None),
        (0, True),
        (1.0, False),  # standard was refused where free was not
    ]


def test_one_nano_beyond_a_balance_is_an_overrun_and_what_is_left_is_none() -> None:
    beyond, _ = overrun_rows(given=1000, spent=1001, callers=5)
    within, spent = overrun_rows(given=1000, spent=990, callers=5)
    assert (beyond.value, beyond.met) == (1.0, False)
    assert (within.value, within.met, spent.value) == (0.0, True, 99.0)
