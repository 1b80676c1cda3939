"""The door to the engine, against a server in this process that answers as vLLM does, or badly."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest

from serving.agent.engine import Engine
from serving.agent.errors import EngineRefused, EngineUnavailable
from serving.agent.tests.http_server import Answer, Request, json_answer, serve

T = TypeVar("T")


def vllm_error(status: int, message: str) -> Answer:
    error = {"message": message, "type": "X", "param": None, "code": status}
    return json_answer({"error": error}, status)


def completion(top: Any) -> Answer:
    return json_answer({"choices": [{"text": "x", "logprobs": {"top_logprobs": top}}]})


async def with_answer(
    tmp_path: Path,
    answer: Answer,
    call: Callable[[Engine], Awaitable[T]],
    requests: list[Request] | None = None,
) -> T:
    async def handler(request: Request) -> Answer:
        if requests is not None:
            requests.append(request)
        return answer

    socket = tmp_path / "engine.sock"
    async with serve(handler, socket):
        engine = Engine(f"unix:{socket}", key="engine-key")
        try:
            return await call(engine)
        finally:
            await engine.aclose()


async def test_the_pulse_tells_alive_sick_and_absent_apart(tmp_path: Path) -> None:
    async def pulse(engine: Engine) -> str:
        return await engine.pulse()

    assert await with_answer(tmp_path, Answer(200), pulse) == "alive"
    assert await with_answer(tmp_path, Answer(503), pulse) == "sick"
    nobody = Engine(f"unix:{tmp_path / 'nobody.sock'}", key="k")
    assert await nobody.pulse() == "absent"
    await nobody.aclose()


async def test_a_pulse_that_does_not_come_in_time_is_sick() -> None:
    def too_slow(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("slow", request=request)

    engine = Engine("http://engine", key="k", transport=httpx2.MockTransport(too_slow))
    assert await engine.pulse() == "sick"
    with pytest.raises(EngineUnavailable):
        await engine.next_token("tiny", "hello")
    await engine.aclose()


async def test_a_probe_is_greedy_salted_and_asks_for_likely_tokens(tmp_path: Path) -> None:
    requests: list[Request] = []
    top = await with_answer(
        tmp_path,
        completion([{"token_id:1": -0.5, "token_id:2": None}]),
        lambda engine: engine.next_token("one", "hello"),
        requests,
    )
    assert top["token_id:1"] == -0.5
    assert math.isnan(top["token_id:2"])
    assert requests[0].headers["authorization"] == "Bearer engine-key"
    sent = requests[0].json
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("one", 0, 1)
    assert sent["cache_salt"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"not json"),
        json_answer({}),
        json_answer({"choices": [{"logprobs": None}]}),
        completion([]),
        vllm_error(500, "EngineDead"),
    ],
)
async def test_a_probe_without_a_proper_answer_says_nothing(tmp_path: Path, answer: Answer) -> None:
    with pytest.raises(EngineUnavailable):
        await with_answer(tmp_path, answer, lambda engine: engine.next_token("one", "hello"))


async def test_a_load_that_is_refused_carries_the_engines_words(tmp_path: Path) -> None:
    answer = vllm_error(400, "Adapter has rank 512.")
    with pytest.raises(EngineRefused, match=r"Adapter has rank 512\."):
        await with_answer(tmp_path, answer, lambda engine: engine.load("one", "/x"))


async def test_a_workers_own_words_are_taken_out_of_their_wrapping(tmp_path: Path) -> None:
    wrapped = (
        "Call to add_lora method failed: Worker failed with error 'LoRA rank 512 is greater than "
        "max_lora_rank 16.', please check the stack trace above for the root cause"
    )
    with pytest.raises(EngineUnavailable) as caught:
        await with_answer(tmp_path, vllm_error(500, wrapped), lambda engine: engine.load("a", "/x"))
    assert str(caught.value) == (
        "The engine answered 500: LoRA rank 512 is greater than max_lora_rank 16."
    )


async def test_what_is_so_already_is_a_success(tmp_path: Path) -> None:
    loaded = vllm_error(400, "The lora adapter 'one' has already been loaded. Set load_inplace.")
    await with_answer(tmp_path, loaded, lambda engine: engine.load("one", "/x"))
    unknown = vllm_error(404, "The lora adapter 'one' cannot be found.")
    await with_answer(tmp_path, unknown, lambda engine: engine.unload("one"))


async def test_adapters_are_the_models_that_are_not_the_base(tmp_path: Path) -> None:
    models = json_answer({"data": [{"id": "tiny"}, {"id": "one"}, {"id": "two"}]})
    listed = await with_answer(tmp_path, models, lambda engine: engine.adapters(base="tiny"))
    assert listed == {"one", "two"}


async def test_the_door_to_an_engine_that_was_replaced_is_closed_politely(tmp_path: Path) -> None:
    """Work on an old incarnation may still be under way when the new one is announced."""
    asked = asyncio.Event()

    async def handler(_request: Request) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        return Answer(200)

    socket = tmp_path / "engine.sock"
    async with serve(handler, socket):
        engine = Engine(f"unix:{socket}", key="k")
        loading = asyncio.create_task(engine.load("one", "/x"))
        await asked.wait()
        await engine.aclose()
        with pytest.raises(EngineUnavailable):
            await loading
        with pytest.raises(EngineUnavailable, match="over"):
            await engine.load("two", "/x")
        assert await engine.pulse() == "absent"


async def test_a_request_is_given_up_with_its_caller(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def handler(_request: Request) -> Answer:
        asked.set()
        await asyncio.sleep(60)
        return Answer(200)

    socket = tmp_path / "engine.sock"
    async with serve(handler, socket):
        engine = Engine(f"unix:{socket}", key="k")
        loading = asyncio.create_task(engine.load("one", "/x"))
        await asked.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        await engine.aclose()


async def test_the_engines_metrics_are_given_as_they_are(tmp_path: Path) -> None:
    requests: list[Request] = []
    text = b'vllm:num_requests_running{model_name="tiny",engine="0"} 3.0\n'
    given = await with_answer(tmp_path, Answer(200, text), lambda e: e.metrics(), requests)
    assert given == text
    assert requests[0].path == "/metrics"
    assert requests[0].headers["accept"] == "text/plain"  # OpenMetrics could not be added to


@pytest.mark.parametrize("answer", [Answer(500), Answer(200, b"cut", promised=1000)])
async def test_metrics_that_do_not_come_whole_do_not_come(tmp_path: Path, answer: Answer) -> None:
    with pytest.raises(EngineUnavailable, match="/metrics"):
        await with_answer(tmp_path, answer, lambda e: e.metrics())


async def test_metrics_are_bounded_in_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.agent.engine.METRICS_BYTES", 100)
    with pytest.raises(EngineUnavailable, match="exceed 100 bytes"):
        await with_answer(tmp_path, Answer(200, b"x" * 101), lambda e: e.metrics())

    async def silent(request: Request) -> Answer:
        await asyncio.sleep(60)
        return Answer(200)

    monkeypatch.setattr("serving.agent.engine.METRICS_SECONDS", 0.1)
    async with serve(silent, tmp_path / "silent.sock"):
        engine = Engine(f"unix:{tmp_path / 'silent.sock'}", key="k")
        with pytest.raises(EngineUnavailable, match="metrics"):
            await engine.metrics()
        await engine.aclose()
        with pytest.raises(EngineUnavailable, match="over"):
            await engine.metrics()
