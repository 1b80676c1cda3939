"""Every fault that can be ordered happens as it says, once, and the journal tells what was done."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.engines import BASE, Simulator, simulator
from bench.enginesim.journal import Line, read
from bench.load.client import Reply, connect, request_bytes
from bench.processes import wait_until
from bench.tests.conftest import SECRET


async def ask(
    engine: Simulator, *, stream: bool = True, request_id: str = "", **fields: Any
) -> Reply:
    body = {"model": BASE, "prompt": "hello", "stream": stream, **fields}
    headers = (f"x-request-id: {request_id}",) if request_id else ()
    payload = request_bytes(
        "/v1/completions", json.dumps(body).encode(), key=engine.key, headers=headers
    )
    client = await connect(engine.address)
    try:
        return await client.ask(payload, keep_body=True)
    finally:
        client.leave()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def order(engine: Simulator, kind: str, **fields: Any) -> None:
    status, answer = engine.call("POST", "/sim/faults", {"kind": kind, **fields})
    assert status == 200, answer


def last_line(folder: Path, request: str) -> Line:
    return [line for line in read(folder / "journal.jsonl") if line.request == request][-1]


async def test_a_status_with_retry_after(engine: Simulator) -> None:
    order(engine, "status", status=429, retry_after=7)
    reply = await ask(engine)
    assert reply.status == 429
    assert json.loads(reply.body)["error"]["code"] == 429
    assert (await ask(engine)).is_success


async def test_a_cut_after_two_tokens(engine: Simulator, folder: Path) -> None:
    order(engine, "cut", at_tokens=2)
    reply = await ask(engine, request_id="cut-1")
    assert reply.failure
    assert reply.events == 2
    line = last_line(folder, "cut-1")
    assert (line.at, line.ended, line.tokens) == ("end", "broken", 2)


async def test_garbage_in_the_middle_of_a_stream(engine: Simulator) -> None:
    order(engine, "garbage", at_tokens=1)
    reply = await ask(engine)
    with pytest.raises(ValueError, match="utf-8"):
        json.loads(reply.body.split(b"\n\n")[1].removeprefix(b"data: "))


async def test_a_garbage_body(engine: Simulator) -> None:
    order(engine, "garbage")
    with pytest.raises(ValueError, match="utf-8"):
        json.loads((await ask(engine, stream=False)).body)


async def test_negative_usage(engine: Simulator) -> None:
    order(engine, "negative_usage", times=2)
    for stream in (True, False):
        reply = await ask(engine, stream=stream)
        assert b'"completion_tokens":-6' in reply.body


async def test_an_error_event(engine: Simulator) -> None:
    order(engine, "stream_error", at_tokens=3)
    body = (await ask(engine)).body
    assert b'data: {"error":' in body
    assert body.endswith(b"data: [DONE]\n\n")


async def test_a_huge_header(engine: Simulator) -> None:
    order(engine, "huge_header", size=100_000)
    reply = await ask(engine)
    assert reply.failure or reply.body == b"{}"


async def test_an_endless_line_is_as_long_as_one_listens(engine: Simulator) -> None:
    order(engine, "endless_line", at_tokens=1)
    client = await connect(engine.address)
    body = {"model": BASE, "prompt": "hello", "stream": True}
    waiter = client.ask(
        request_bytes("/v1/completions", json.dumps(body).encode(), key=engine.key), keep_body=True
    )
    reply = client.coming
    assert reply is not None
    await until(lambda: len(reply.body) > 1_000_000)
    client.leave()
    assert b"\n\n" not in (await waiter).body[-900_000:]


async def test_a_client_that_leaves_is_told_in_the_journal(engine: Simulator, folder: Path) -> None:
    order(engine, "stall", at_tokens=4)
    client = await connect(engine.address)
    body = {"model": BASE, "prompt": "hello", "stream": True}
    payload = request_bytes(
        "/v1/completions",
        json.dumps(body).encode(),
        key=engine.key,
        headers=("x-request-id: left-1",),
    )
    waiter = client.ask(payload)
    await until(lambda: client.coming is not None and client.coming.events == 4)
    client.leave()
    assert (await waiter).failure
    wait_until(lambda: last_line(folder, "left-1").at == "end", what="the journal")
    line = last_line(folder, "left-1")
    assert (line.ended, line.tokens) == ("aborted", 4)


def test_sick_and_well_again(engine: Simulator) -> None:
    order(engine, "sick")
    assert engine.call("GET", "/health")[0] == 503
    engine.call("DELETE", "/sim/faults")
    assert engine.call("GET", "/health")[0] == 200


def test_an_unknown_fault_is_refused(engine: Simulator) -> None:
    assert engine.call("POST", "/sim/faults", {"kind": "boredom"})[0] == 400


@pytest.fixture
def mortal(folder: Path) -> Iterator[Simulator]:
    with simulator(
        folder / "mortal",
        replica="m",
        engine_key=SECRET,
        arguments=["--journal", str(folder / "mortal.jsonl"), "--journal-progress"],
    ) as engine:
        yield engine


async def test_a_crash_leaves_what_was_sent_in_the_journal(mortal: Simulator, folder: Path) -> None:
    order(mortal, "crash", at_tokens=3)
    reply = await ask(mortal, request_id="crash-1")
    assert reply.failure
    lines = [line for line in read(folder / "mortal.jsonl") if line.request == "crash-1"]
    assert [line.at for line in lines] == ["begin", "token", "token", "token"]
    assert lines[-1].tokens == 3
