"""The load generator: what it counts, and what it will not do."""

from __future__ import annotations

import json

import pytest

from bench.engines import BASE, Simulator
from bench.load.client import LoadRefused, connect, request_bytes
from bench.load.runs import MAX_CONNECTIONS, closed_loop, fixed_rate
from bench.processes import cpu_seconds


def payload(engine: Simulator, *, stream: bool = False) -> bytes:
    body = {"model": BASE, "prompt": "hello", "stream": stream, "max_tokens": 4}
    return request_bytes("/v1/completions", json.dumps(body).encode(), key=engine.key)


async def test_a_closed_loop_makes_every_request_once(engine: Simulator) -> None:
    run = await closed_loop(engine.address, payload(engine), connections=4, requests=50)
    assert len(run.replies) == 50
    assert not run.failures


async def test_events_of_streams_are_counted(engine: Simulator) -> None:
    run = await closed_loop(engine.address, payload(engine, stream=True), connections=2, requests=6)
    assert run.events == 6 * (4 + 2)


async def test_a_fixed_rate_is_kept_and_counted_from_the_due_instant(engine: Simulator) -> None:
    run = await fixed_rate(engine.address, payload(engine), rate=200, seconds=0.5)
    assert len(run.replies) == 100
    assert not run.failures
    due = sorted(reply.due_at for reply in run.replies)
    assert due[-1] - due[0] == pytest.approx(99 / 200)


async def test_load_stays_on_this_machine() -> None:
    with pytest.raises(LoadRefused):
        await connect("http://192.0.2.1:80")


async def test_load_is_bounded(engine: Simulator) -> None:
    with pytest.raises(ValueError, match="At most"):
        await closed_loop(
            engine.address, payload(engine), connections=MAX_CONNECTIONS + 1, requests=1
        )


async def test_cpu_time_grows_with_work(engine: Simulator) -> None:
    before = cpu_seconds([engine.pid])
    await closed_loop(engine.address, payload(engine), connections=2, requests=200)
    assert cpu_seconds([engine.pid]) > before
