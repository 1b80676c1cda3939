"""The official client over every route; every JSON body and every event of ours is held against
OpenAI's own schemas, where they lie beside the repository.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest

from kernel.keys import key_new
from serving.gateway.api import PARSERS
from serving.gateway.principals import Limits
from serving.gateway.tests.openapi import ANSWERS, SPEC, Recorder, published
from serving.gateway.tests.stack import Servers, Stack, stack, until

HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Bonn"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "mood",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}},
            "required": ["mood"],
            "additionalProperties": False,
        },
    },
}
EVERY_OPENAI_FIELD: dict[str, Any] = {
    "frequency_penalty": 0.5, "logit_bias": {"5": 1}, "max_completion_tokens": 4, "metadata": {"a": "b"},
    "n": 1, "parallel_tool_calls": True, "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5, "prompt_cache_key": "k", "safety_identifier": "s", "seed": 1,
    "service_tier": "auto", "stop": ["x"], "store": False, "temperature": 1, "tools": [TOOL],
    "tool_choice": "none", "top_p": 0.9, "user": "u", "verbosity": "low",
}  # fmt: skip


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """At the end of a test, everything that went over the wire is validated."""
    made = Recorder()
    yield made
    schemas = published()
    if schemas is None:
        pytest.skip(f"{SPEC} is not there: answers are not held against OpenAI's schemas")
    for exchange in made.exchanges:
        for document in exchange.documents():
            schemas.check(exchange.schema(document), document)


@pytest.fixture(scope="module")
def shared(gateway_servers: Servers) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="tessera-") as folder,
        stack(gateway_servers, Path(folder)) as made,
    ):
        made.tenant("support")
        made.tenant("legal")
        made.tenant("support", scopes=["manage"])
        made.engine()
        made.serve()
        yield made


def client_of(stack: Stack, recorder: Recorder, *, tenant: int = 0, **options: Any) -> Any:
    """The official client, stock but for the recorder. Untyped: its overloads know its own models."""
    return openai.OpenAI(
        api_key=stack.tenants[tenant].key,
        base_url=f"{stack.url}/v1",
        http_client=httpx2.Client(transport=recorder),
        **{"max_retries": 0, **options},
    )


@pytest.fixture
def client(shared: Stack, recorder: Recorder) -> Iterator[Any]:
    with client_of(shared, recorder) as made:
        yield made


def test_every_route_has_a_published_shape() -> None:
    asked = {path for method, path, _ in ANSWERS if method == "POST"}
    assert asked == {path.decode() for path in PARSERS}


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["support"]
    found = client.models.retrieve("support")
    assert (found.object, found.created) == ("model", 1_700_000_000)
    for name in ("legal", "no such model", "sup/port"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3},
        {"logprobs": True, "top_logprobs": 3},
        {"max_completion_tokens": 2},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"response_format": {"type": "json_object"}},
        EVERY_OPENAI_FIELD,
    ],
    ids=["plain", "n", "logprobs", "limit", "tools", "json", "every field"],
)
def test_chat(client: Any, recorder: Recorder, fields: dict[str, Any]) -> None:
    answer = client.chat.completions.create(model="support", messages=HELLO, **fields)
    assert answer.model == "support"
    assert len(answer.choices) == fields.get("n", 1)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    chunks = list(
        client.chat.completions.create(
            model="support",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
            **fields,
        )
    )
    assert {choice.index for chunk in chunks for choice in chunk.choices} == set(
        range(fields.get("n", 1))
    )
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    assert [bool(exchange.is_stream) for exchange in recorder.exchanges] == [False, True]
    assert recorder.exchanges[1].body.endswith(b"data: [DONE]\n\n")


def test_logprobs_are_per_token(client: Any) -> None:
    answer = client.chat.completions.create(
        model="support", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 4
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)
    assert "".join(token.token for token in logprobs.content) == answer.choices[0].message.content


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_tool_is_called(client: Any, choice: Any) -> None:
    asked: dict[str, Any] = {
        "model": "support", "messages": HELLO, "tools": [TOOL], "tool_choice": choice
    }  # fmt: skip
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].message.tool_calls
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in {"Oslo", "Bonn"}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    calls = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].function.name == "get_weather"
    assert json.loads("".join(c.function.arguments or "" for c in calls)) == json.loads(
        call.function.arguments
    )
    history = [
        *HELLO,
        answer.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "4"},
    ]
    again = client.chat.completions.create(model="support", messages=history, tools=[TOOL])
    assert again.choices


def test_a_schema_shapes_the_answer(client: Any) -> None:
    answer = client.chat.completions.create(
        model="support",
        messages=HELLO,
        response_format=FORMAT,
    )
    assert json.loads(answer.choices[0].message.content or "")["mood"] in {"good", "bad"}


@pytest.mark.parametrize(
    "fields", [{}, {"n": 2}, {"logprobs": 2}, {"prompt": ["One", "Two"]}, {"prompt": [1, 2, 3]}],
    ids=["plain", "n", "logprobs", "prompts", "tokens"],
)  # fmt: skip
def test_completions(client: Any, fields: dict[str, Any]) -> None:
    asked = {"model": "support", "prompt": "Once", "max_tokens": 4, **fields}
    whole = client.completions.create(**asked)
    parts: dict[int, str] = {}
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            parts[choice.index] = parts.get(choice.index, "") + choice.text
    assert {choice.index: choice.text for choice in whole.choices} == parts


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "legal"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_request"),
        ({"messages": []}, openai.BadRequestError, "invalid_request"),
        ({"extra_body": {"priority": -5}}, openai.BadRequestError, "field_refused"),
        ({"extra_body": {"colour": "red"}}, openai.BadRequestError, "unknown_field"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, openai.BadRequestError,
         "context_length_exceeded"),
    ],
)  # fmt: skip
def test_refusals_are_the_clients_own_errors_and_final(
    shared: Stack,
    recorder: Recorder,
    change: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str,
) -> None:
    """Asked by a client that would try three times."""
    with client_of(shared, recorder, max_retries=2) as client, pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "support", "messages": HELLO, **change})
    assert caught.value.code == code
    assert caught.value.request_id
    assert len(recorder.exchanges) == 1
    assert recorder.exchanges[0].headers["x-should-retry"] == "false"


def test_a_bad_key_and_a_key_without_the_scope(shared: Stack, recorder: Recorder) -> None:
    with (
        client_of(shared, recorder, max_retries=2) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.with_options(api_key="tsr_live_x").models.list()
    with (
        client_of(shared, recorder, tenant=2, max_retries=2) as client,
        pytest.raises(openai.PermissionDeniedError),
    ):
        client.models.list()
    assert len(recorder.exchanges) == 2


def test_what_is_no_path_here(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="support", input="x")
    assert caught.value.code == "unknown_path"


def test_too_large_a_body_is_final(shared: Stack, recorder: Recorder) -> None:
    with (
        client_of(shared, recorder, max_retries=2) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.completions.create(model="support", prompt="x" * 5_000_000)
    assert caught.value.status_code == 413
    assert len(recorder.exchanges) == 1


def test_headers_come_with_the_answer(client: Any) -> None:
    answer = client.chat.completions.with_raw_response.create(model="support", messages=HELLO)
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == "application/json"
    assert answer.parse().choices
    with client.chat.completions.with_streaming_response.create(
        model="support", messages=HELLO, stream=True
    ) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-request-id"].startswith("req_")
        assert list(stream.iter_lines())[-2] == "data: [DONE]"


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept before each further attempt."""
    taken: list[float] = []
    monkeypatch.setattr("openai._base_client.time", _Time(taken))
    return taken


class _Time:
    """``time`` as the client uses it, without the waiting."""

    def __init__(self, taken: list[float]) -> None:
        self.sleep = taken.append

    def __getattr__(self, name: str) -> Any:
        import time  # noqa: PLC0415 - what stands in for it has its name

        return getattr(time, name)


def test_a_full_engine_is_asked_again_after_the_delay_we_name(
    served: Stack, recorder: Recorder, naps: list[float]
) -> None:
    served.engines[0].order(kind="status", status=503, times=0)
    with (
        client_of(served, recorder, max_retries=2) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model="support", messages=HELLO)
    assert caught.value.status_code == 503
    assert [exchange.status for exchange in recorder.exchanges] == [503] * 3
    assert naps == [int(e.headers["retry-after-ms"]) / 1000 for e in recorder.exchanges[:2]]


def test_an_engine_that_fails_once_is_not_noticed(
    bare: Stack, recorder: Recorder, naps: list[float]
) -> None:
    bare.tenant("support")
    bare.engine()
    bare.engine()
    bare.serve()
    for engine in bare.engines:
        engine.order(kind="cut")
    with client_of(bare, recorder, max_retries=2) as client:
        assert client.completions.create(model="support", prompt="x", max_tokens=2).choices
    assert [exchange.status for exchange in recorder.exchanges][-1] == 200
    assert len(naps) == len(recorder.exchanges) - 1


def test_a_stream_that_breaks_is_an_error_and_not_an_end(bare: Stack, recorder: Recorder) -> None:
    bare.tenant("support")
    bare.engine().order(kind="cut", at_tokens=3)
    bare.serve()
    with client_of(bare, recorder) as client:
        stream = client.chat.completions.create(
            model="support", messages=HELLO, stream=True, max_tokens=10
        )
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert caught.value.code == "engine_failed_midway"


def test_a_client_whose_patience_ends_stops_its_engine(bare: Stack, recorder: Recorder) -> None:
    tenant = bare.tenant("support")
    engine = bare.engine("--first-token-ms", "20000")
    bare.serve()
    with client_of(bare, recorder, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.completions.create(model=tenant.models[0], prompt="x")
    assert until(lambda: engine.lines("end"))[0]["ended"] == "aborted"


def limited(stack: Stack, **limits: Any) -> str:
    """Another key of the first tenant, with limits of its own."""
    key, key_id = key_new("live"), f"key-{uuid4().hex[:8]}"
    mine = Limits(scope="key", id=key_id, **limits)
    stack.enter_key(key, stack.tenants[0], key_id=key_id, limits=(mine,))
    return key


def test_limits_are_told_with_every_answer(served: Stack, recorder: Recorder) -> None:
    key = limited(served, requests_per_minute=600, tokens_per_minute=1_000_000)
    with client_of(served, recorder) as client:
        mine = client.with_options(api_key=key)
        plain = mine.chat.completions.with_raw_response.create(model="support", messages=HELLO)
        with mine.chat.completions.with_streaming_response.create(
            model="support", messages=HELLO, stream=True
        ) as stream:
            seen = [plain.headers, stream.headers]
            assert list(stream.iter_lines())
    for headers in seen:
        assert headers["x-ratelimit-limit-requests"] == "600"
        assert headers["x-ratelimit-limit-tokens"] == "1000000"
        assert 0 <= int(headers["x-ratelimit-remaining-requests"]) < 600
        assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 1_000_000
        for name in ("requests", "tokens"):
            assert re.fullmatch(r"(\d+h)?(\d+m)?[\d.]+m?s", headers[f"x-ratelimit-reset-{name}"])


def test_a_limit_is_a_429_that_the_client_sits_out(
    served: Stack, recorder: Recorder, naps: list[float]
) -> None:
    key = limited(served, requests_per_minute=6)
    with client_of(served, recorder, max_retries=1) as client:
        mine = client.with_options(api_key=key)
        with pytest.raises(openai.RateLimitError) as caught:
            [mine.completions.create(model="support", prompt="x", max_tokens=1) for _ in range(10)]
    assert (caught.value.code, caught.value.type) == ("requests_per_minute", "rate_limit_error")
    assert "this API key" in caught.value.message
    refused = [exchange for exchange in recorder.exchanges if exchange.status == 429]
    assert refused[0].headers["x-ratelimit-remaining-requests"] == "0"
    assert naps[0] == int(refused[0].headers["retry-after-ms"]) / 1000
    assert int(refused[0].headers["retry-after"]) >= naps[0]


def test_the_same_key_for_another_request_is_a_conflict_and_final(
    shared: Stack, recorder: Recorder
) -> None:
    once = {"extra_headers": {"Idempotency-Key": uuid4().hex}, "model": "support", "max_tokens": 2}
    with client_of(shared, recorder, max_retries=2) as client:
        first = client.completions.create(prompt="One", **once)
        assert client.completions.create(prompt="One", **once).choices == first.choices
        with pytest.raises(openai.ConflictError):
            client.completions.create(prompt="Two", **once)
    assert [exchange.status for exchange in recorder.exchanges] == [200, 200, 409]
