"""Room on the engine, timing, metrics and the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.engines import BASE, Simulator, adapter_write, simulator
from bench.enginesim.generation import Pace
from bench.enginesim.journal import read
from bench.enginesim.options import parse
from bench.load.client import Reply, connect, request_bytes
from bench.tests.conftest import SECRET


@pytest.fixture(scope="module")
def narrow(folder: Path) -> Iterator[Simulator]:
    """Two requests at once, one adapter at once, a token every 20 ms."""
    arguments = ["--max-num-seqs", "2", "--max-loras", "1", "--token-ms", "20", "--tokens", "10"]
    arguments += ["--journal", str(folder / "narrow.jsonl")]
    with simulator(folder / "narrow", replica="n", engine_key=SECRET, arguments=arguments) as one:
        for seed, name in enumerate(("one", "two")):
            one.load(name, adapter_write(folder / name, seed=seed))
        yield one


async def ask(engine: Simulator, model: str) -> Reply:
    body = json.dumps({"model": model, "prompt": "x", "stream": True, "max_tokens": 10})
    client = await connect(engine.address)
    try:
        return await client.ask(request_bytes("/v1/completions", body.encode(), key=engine.key))
    finally:
        client.leave()


async def test_what_finds_no_room_waits_its_turn(narrow: Simulator, folder: Path) -> None:
    replies = await asyncio.gather(*[ask(narrow, "one") for _ in range(4)])
    assert all(reply.is_success for reply in replies)
    ends = sorted(line.time for line in read(folder / "narrow.jsonl") if line.at == "end")[-4:]
    assert ends[2] - ends[1] > 0.15


async def test_another_adapter_waits_while_the_batch_holds_no_more(narrow: Simulator) -> None:
    start = time.perf_counter()
    await asyncio.gather(ask(narrow, "one"), ask(narrow, "two"))
    assert time.perf_counter() - start > 0.35


async def test_tokens_come_at_the_set_pace(narrow: Simulator) -> None:
    reply = await ask(narrow, "one")
    assert 0.17 < reply.done_at - reply.first_at < 1.0


async def test_metrics_have_vllms_names_and_add_up(narrow: Simulator, folder: Path) -> None:
    await ask(narrow, "one")
    _, text = narrow.call("GET", "/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    labels = 'engine="0",model_name="simulated-base"'
    tokens = sum(line.tokens for line in read(folder / "narrow.jsonl") if line.at == "end")
    assert float(values[f"vllm:generation_tokens_total{{{labels}}}"]) == tokens
    assert float(values[f"vllm:num_requests_running{{{labels}}}"]) == 0
    assert f"vllm:time_to_first_token_seconds_count{{{labels}}}" in values
    assert any(name.startswith("vllm:lora_requests_info{max_lora=") for name in values)


async def test_on_sigterm_answers_have_time_to_end(folder: Path) -> None:
    arguments = ["--shutdown-timeout", "10", "--token-ms", "20", "--tokens", "20"]
    with simulator(folder / "draining", replica="d", engine_key=SECRET, arguments=arguments) as one:
        answers = asyncio.create_task(ask(one, BASE))
        await asyncio.sleep(0.1)
        os.kill(one.pid, signal.SIGTERM)
        assert (await answers).is_success


def test_pace_says_when_and_how_many() -> None:
    pace = Pace(0.5, 0.1)
    assert pace.due(3) == pytest.approx(0.8)
    assert [pace.out(seconds) for seconds in (0.4, 0.55, 0.85)] == [0, 1, 4]


def test_vllms_flags_are_taken_and_the_rest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "from-environment")
    options, ignored = parse(
        ["--model", "/m", "--served-model-name", "a", "b", "--uds", "/s", "--enforce-eager"]
    )
    assert options.served_model_name == ("a", "b")
    assert options.api_key == "from-environment"
    assert ignored == ["--enforce-eager"]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    whole = b'{"at":"begin","number":1,"process":2,"time":1.0}\n'
    journal.write_bytes(whole + whole[:-10])
    assert len(list(read(journal))) == 1
