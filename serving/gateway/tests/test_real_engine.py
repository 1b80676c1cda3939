"""The gateway in front of a real vLLM with a tiny random model: what a simulator could get wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from serving.agent.tests.engine_process import EngineProcess, write_tiny_adapter
from serving.contracts import engine_api_key
from serving.gateway.tests.journals import facts
from serving.gateway.tests.stack import ENGINE_KEY, Engine, Servers, Stack, stack, until

pytestmark = pytest.mark.engine

REPLICA = "real"


@dataclass
class Real:
    stack: Stack
    engine: EngineProcess
    client: openai.OpenAI


@pytest.fixture(scope="module")
def real(real_engine_python: Path, tiny_base: Path, gateway_servers: Servers) -> Iterator[Real]:
    with (
        tempfile.TemporaryDirectory(prefix="tessera-") as folder,
        stack(gateway_servers, Path(folder)) as made,
    ):
        engine = EngineProcess(
            python=real_engine_python,
            model=tiny_base,
            run_dir=Path(folder) / "engine",
            key=engine_api_key(ENGINE_KEY, REPLICA),
        )
        engine.start()
        try:
            engine.wait_ready()
            tenant = made.tenant("support", "lost")
            adapter = write_tiny_adapter(Path(folder) / "adapter", seed=1)
            _load(engine, tenant.adapter("support"), adapter)
            made.serve(engines=[_shown(engine)])
            with openai.OpenAI(
                api_key=tenant.key, base_url=f"{made.url}/v1", max_retries=0
            ) as client:
                yield Real(made, engine, client)
        finally:
            engine.kill()


def _shown(engine: EngineProcess) -> Engine:
    path = Path(engine.address.removeprefix("unix:"))
    assert engine.process is not None
    return Engine(REPLICA, engine.incarnation, engine.process, engine.address, path, path, slots=16)


def _load(engine: EngineProcess, name: str, folder: Path) -> None:
    with engine.client() as client:
        body = {"lora_name": name, "lora_path": str(folder)}
        client.post("/v1/load_lora_adapter", json=body).raise_for_status()


def test_plain_and_streamed_say_the_same_and_are_metered_the_same(real: Real) -> None:
    before = len(facts(real.stack.home))
    ask = {"model": "support", "prompt": "Once upon", "max_tokens": 12, "temperature": 0}
    whole = real.client.completions.create(**ask)  # type: ignore[call-overload]
    chunks = list(
        real.client.completions.create(  # type: ignore[call-overload]
            **ask, stream=True, stream_options={"include_usage": True}
        )
    )
    assert whole.choices[0].text == "".join(c.choices[0].text for c in chunks if c.choices)
    assert {chunk.model for chunk in chunks} == {whole.model} == {"support"}
    settled = until(lambda: len(facts(real.stack.home)) == before + 2 and facts(real.stack.home))
    for fact in settled[-2:]:
        assert fact.completeness == "final"
        assert fact.quantities["input"] == whole.usage.prompt_tokens
        assert fact.quantities["output"] == whole.usage.completion_tokens
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_adapter_answers_and_not_its_base(real: Real) -> None:
    ours = real.client.completions.create(
        model="support", prompt="Once upon", max_tokens=12, temperature=0
    )
    assert (
        ours.choices[0].text
        != real.engine.complete("Once upon", max_tokens=12)["choices"][0]["text"]
    )


def test_several_choices_of_a_chat_are_counted_together(real: Real) -> None:
    before = len(facts(real.stack.home))
    chunks = list(
        real.client.chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=6,
            n=3,
            stream=True,
            logprobs=True,
            extra_body={"ignore_eos": True},
        )
    )
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1, 2}
    assert all(chunk.usage is None for chunk in chunks)
    settled = until(lambda: len(facts(real.stack.home)) == before + 1 and facts(real.stack.home))
    assert settled[-1].quantities["output"] == 18


def test_a_limit_that_does_not_fit_behind_the_prompt_is_cut_to_what_is_left(real: Real) -> None:
    for limit in (900, 100_000):
        answer = real.client.completions.create(
            model="support", prompt="word " * 200, max_tokens=limit, extra_body={"ignore_eos": True}
        )
        assert answer.usage is not None
        assert answer.usage.total_tokens <= 1024
        assert answer.choices[0].finish_reason == "length"


def test_a_prompt_beyond_the_context_is_the_callers_error(real: Real) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        real.client.completions.create(model="support", prompt="word " * 3000)
    assert caught.value.code == "context_length_exceeded"
    assert real.stack.tenants[0].organization not in str(caught.value)


def test_an_adapter_the_engine_does_not_have_is_not_ready_rather_than_answered(real: Real) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        real.client.completions.create(model="lost", prompt="x")
    assert (caught.value.status_code, caught.value.code) == (503, "model_not_ready")


def test_a_stream_left_early_is_metered_up_to_there(real: Real) -> None:
    before = len(facts(real.stack.home))
    with real.client.completions.create(
        model="support",
        prompt="x",
        n=8,  # more than the buffers between engine and client hold
        max_tokens=900,
        stream=True,
        extra_body={"ignore_eos": True},
    ) as stream:
        for _ in zip(range(5), stream, strict=False):
            pass
    settled = until(lambda: len(facts(real.stack.home)) == before + 1 and facts(real.stack.home))
    assert settled[-1].completeness == "aborted"
    assert 5 <= settled[-1].quantities["output"] < 8 * 900


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"stop": ["a"], "seed": 1, "top_p": 0.9, "presence_penalty": 1, "logit_bias": {"5": -1}},
        {"extra_body": {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 1}},
        {"top_logprobs": 2, "logprobs": True},
        {"user": "u", "store": True, "metadata": {"a": "b"}},
        {"extra_body": {"cache_salt": "mine"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_forwarded_fields_are_ones_the_engine_takes(real: Real, fields: dict[str, object]) -> None:
    answer = real.client.chat.completions.create(  # type: ignore[call-overload]
        model="support", messages=[{"role": "user", "content": "Hi"}], max_tokens=8, **fields
    )
    assert answer.model == "support"
