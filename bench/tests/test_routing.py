"""The routing benchmark: its workload, its references and its rows; and the engine's pace."""

from __future__ import annotations

import random
import time
from pathlib import Path

from bench.engines import BASE, simulator
from bench.policies import LeastRequests, RoundRobin
from bench.routing import OURS, Found, choice_rows, found_rows, workload
from bench.tests.conftest import SECRET
from serving.gateway.tests.test_where import directory, endpoint, principal, wish
from serving.gateway.where import Fleet


def asks(seed: int) -> list[tuple[float, bytes]]:
    texts = ["first " * 9, "second " * 9, "third " * 9]
    return workload(random.Random(seed), texts, rate=100, seconds=3, key="k")


def test_every_way_gets_the_same_requests_and_a_few_beginnings_are_popular() -> None:
    assert asks(1) == asks(1)
    assert asks(1) != asks(2)
    instants = [instant for instant, _ in asks(1)]
    assert instants == sorted(instants)
    assert 200 < len(instants) < 400
    first, second, third = (
        sum(word in body for _, body in asks(1)) for word in (b"first ", b"second ", b"third ")
    )
    assert first > second > third > 0


def chosen(fleet: Fleet, tried: tuple[str, ...] = ()) -> str | None:
    made = directory(endpoint("a", "a"), endpoint("b", "a"))
    fleet.update(made, 0.0)
    target = made.target(principal(), "model")
    replica = fleet.choose(target, wish("x"), now=1, tried=tried, asked=0)
    return replica.endpoint.replica if replica else None


def test_the_references_choose_as_they_are_called() -> None:
    fleet = RoundRobin()
    assert [chosen(fleet) for _ in range(4)] in (["a", "b"] * 2, ["b", "a"] * 2)
    assert chosen(fleet, tried=("a-1",)) == "b"
    assert chosen(fleet, tried=("a-1", "b-1")) is None
    least = LeastRequests()
    first = chosen(least)
    for replica in least:
        replica.outstanding = int(replica.endpoint.replica == first)
    assert {first, chosen(least)} == {"a", "b"}


def test_only_round_robin_with_tight_caches_is_judged() -> None:
    found = {
        OURS: Found(90.0, 100.0, 10.0, 100.0),
        "round robin": Found(50.0, 400.0, 100.0, 400.0),
        "least requests": Found(50.0, 400.0, 100.0, 400.0),
    }
    judged = [row for row in found_rows("x", found, is_judged=True) if row.met is not None]
    assert [(row.reference, row.ratio, row.met) for row in judged] == [
        ("round robin", 0.25, True),
        ("round robin", 0.25, True),
    ]
    assert all(row.met is None for row in found_rows("x", found, is_judged=False))


def test_the_price_of_a_choice_is_measured_for_one_and_for_many() -> None:
    one, four, sixteen = choice_rows(times=50)
    assert one.value > 0
    assert {row.target for row in (one, four, sixteen)} == {one.target}


def test_a_prompt_takes_time_where_it_is_not_cached(folder: Path) -> None:
    """1,000 tokens at 5,000 a second, one prompt after the other."""
    arguments = ("--prefill-tokens-per-second", "5000")
    with simulator(folder / "paced", replica="r", engine_key=SECRET, arguments=arguments) as engine:

        def seconds(prompt: str) -> float:
            begun = time.monotonic()
            engine.call("POST", "/v1/completions", {"model": BASE, "prompt": prompt})
            return time.monotonic() - begun

        assert seconds("a" * 4000) >= 0.2
        assert seconds("b" * 4000) >= 0.2
        cached = min(seconds("a" * 4000) for _ in range(3))
        assert cached < 0.2
