"""The benchmark's rows, with and without nginx."""

from __future__ import annotations

from bench.cost import Cost
from bench.gateway import FULL, SHORT, cost_rows, latency_rows
from bench.latency import Latency
from bench.ways import Way, Ways


def way(name: str) -> Way:
    return Way(name, f"unix:{name}", "key", ())


COSTS = {"gateway": Cost(100.0, 30.0), "nginx/1": Cost(20.0, 25.0)}
TIMES = {
    "engine": Latency(1.0, 2.0, 1.0, 2.0),
    "gateway": Latency(1.5, 9.0, 1.5, 4.0),
    "nginx/1": Latency(1.1, 2.2, 1.1, 2.2),
}


NGINX = Ways(way("engine"), way("gateway"), way("nginx/1"))


def test_cost_is_told_in_nginxs() -> None:
    rows = cost_rows(NGINX, COSTS)
    assert [(row.ratio, row.met) for row in rows] == [(5.0, False), (1.2, True)]


def test_litellm_stands_beside_and_a_hundredth_of_it_is_enough() -> None:
    rows = cost_rows(
        Ways(way("engine"), way("gateway"), way("nginx/1"), way("litellm")),
        COSTS | {"litellm": Cost(20_000.0, 1_000.0)},
    )
    assert [row.litellm for row in rows[:2]] == [20_000.0, 1_000.0]
    assert (rows[2].value, rows[2].met) == (200.0, True)


def test_without_nginx_there_is_no_ratio_and_no_verdict() -> None:
    rows = cost_rows(Ways(way("engine"), way("gateway"), None), COSTS)
    assert [(row.value, row.ratio, row.met) for row in rows] == [
        (100.0, None, None),
        (30.0, None, None),
    ]


def test_latency_is_what_is_added_to_going_straight() -> None:
    ours = [row for row in latency_rows(NGINX, TIMES, FULL.pressure) if "gateway" in row.name]
    assert [(row.value, row.met) for row in ours] == [
        (0.5, True),
        (7.0, False),
        (0.5, None),
        (2.0, True),
    ]


def test_the_short_form_is_short() -> None:
    assert SHORT.load.plain_requests * 4 < FULL.load.plain_requests
    assert not SHORT.with_litellm
