"""The gateway in front of a real vLLM with a tiny random model: what a simulator could get wrong."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from serving.agent.tests.engine_process import EngineProcess, write_tiny_adapter
from serving.contracts import engine_api_key
from serving.controller.local import TOOL_FLAGS
from serving.gateway.tests import raw
from serving.gateway.tests.journals import facts
from serving.gateway.tests.openapi import Recorder, published
from serving.gateway.tests.stack import ENGINE_KEY, Engine, Servers, Stack, stack, until
from serving.gateway.tests.test_attacks_bodies import DEEP, HOSTILE_SCHEMAS, formatted, tooled
from serving.gateway.tests.test_conformance import FORMAT, TOOL

pytestmark = pytest.mark.engine

REPLICA = "real"
# Small ones that make no sense, or not to every grammar compiler.
UNSOUND_SCHEMAS: dict[str, dict[str, Any]] = {
    "any text": {"type": "string", "pattern": "[\\u0000-\\uffff]{1,128}"},
    "huge lengths": {"type": "string", "minLength": 10**8, "maxLength": 10**9},
    "long enum": {"enum": [f"{n:060}" for n in range(900)]},
    "many ways": {
        "anyOf": [{"type": "object", "properties": {f"p{n}": {} for n in range(40)}}] * 40
    },
    "nothing": {"not": {}},
    "negative": {"type": "array", "minItems": -5},
    "huge range": {"type": "integer", "minimum": -(10**30), "maximum": 10**30},
    "looking around": {"type": "string", "pattern": "(?=a)b(?!c)"},
    "looking back": {"type": "string", "pattern": "(a)\\1"},
    "no type": {"type": "nonsense"},
    "no properties": {"type": "object", "properties": [1]},
}
HELLO = [{"role": "user", "content": "Hi"}]


@dataclass
class Real:
    stack: Stack
    engine: EngineProcess
    client: openai.OpenAI
    recorder: Recorder

    def chat(self, **fields: Any) -> Any:
        asked = {"model": "support", "messages": HELLO, "max_tokens": 48, **fields}
        return self.client.chat.completions.create(**asked)

    def is_well(self) -> bool:
        """The engine is alive and answers the next request."""
        with self.engine.client() as client:
            assert client.get("/health").status_code == 200
        return bool(self.chat(max_tokens=1).choices)


@pytest.fixture(autouse=True)
def held_against_the_published_schemas(real: Real) -> Iterator[None]:
    """Whatever a test of this module brings over the wire; ``test_conformance.py`` says if not."""
    yield
    exchanges, real.recorder.exchanges[:] = list(real.recorder.exchanges), []
    schemas = published()
    for exchange in exchanges:
        if schemas is not None and exchange.is_whole:
            for document in exchange.documents():
                schemas.check(exchange.schema(document), document)


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
            options=TOOL_FLAGS,
        )
        engine.start()
        try:
            engine.wait_ready()
            tenant = made.tenant("support", "lost")
            adapter = write_tiny_adapter(Path(folder) / "adapter", seed=1)
            _load(engine, tenant.adapter("support"), adapter)
            made.serve(engines=[_shown(engine)])
            recorder = Recorder()
            with openai.OpenAI(
                api_key=tenant.key,
                base_url=f"{made.url}/v1",
                max_retries=0,
                http_client=httpx2.Client(transport=recorder, timeout=120),
            ) as client:
                yield Real(made, engine, client, recorder)
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


NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_tool_that_must_be_called_is_called(real: Real, choice: Any) -> None:
    """A model that says anything is held to the tool by the engine's grammar."""
    asked = {"tools": [TOOL], "tool_choice": choice, "max_tokens": 400, "seed": 1}
    whole = real.chat(**asked, temperature=0).choices[0].message
    assert [call.function.name for call in whole.tool_calls] == ["get_weather"]
    chunks = list(real.chat(**asked, temperature=0, stream=True))
    calls = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].function.name == "get_weather"
    streamed = "".join(call.function.arguments or "" for call in calls)
    for arguments in (streamed, whole.tool_calls[0].function.arguments):
        assert json.loads(arguments)["city"] in {"Oslo", "Bonn"}


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_tool_that_may_be_called_is_no_error(real: Real, choice: str) -> None:
    answer = real.chat(tools=[TOOL], tool_choice=choice, max_tokens=4)
    assert answer.choices[0].message.role == "assistant"


def test_a_schema_shapes_what_the_model_says(real: Real) -> None:
    answer = real.chat(response_format=FORMAT, max_tokens=200, temperature=0)
    assert json.loads(answer.choices[0].message.content)["mood"] in {"good", "bad"}


def test_logprobs_and_choices_are_as_many_as_were_asked_for(real: Real) -> None:
    answer = real.chat(n=2, logprobs=True, top_logprobs=3, max_tokens=5, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert all(len(token.top_logprobs) == 3 for token in choice.logprobs.content)
    completion = real.client.completions.create(
        model="support", prompt="Once", logprobs=2, max_tokens=3, n=2
    )
    assert len(completion.choices) == 2
    assert completion.choices[0].logprobs is not None


@pytest.mark.parametrize("place", [formatted, tooled])
@pytest.mark.parametrize("name", [*HOSTILE_SCHEMAS, *UNSOUND_SCHEMAS])
def test_an_engine_outlives_every_hostile_schema(real: Real, name: str, place: Any) -> None:
    """A08: refused, or answered within bounds; the engine is alive, the next request is a 200."""
    schema = (HOSTILE_SCHEMAS | UNSOUND_SCHEMAS)[name]
    asked = {"model": "support", "messages": HELLO, "max_tokens": 4, **place(schema)}
    if place is tooled:
        asked["tool_choice"] = "required"
    data = json.dumps(asked).replace('"DEEP"', DEEP).encode()
    with raw.connected(real.stack.port, seconds=60) as connection:
        connection.sendall(raw.request("/v1/chat/completions", data, key=real.stack.tenants[0].key))
        answer = raw.read_answer(connection)
    assert answer.status in {200, 400}, answer.body
    assert real.is_well()
