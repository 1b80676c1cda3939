"""The official client takes the simulator for an engine."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest

from bench.engines import BASE, Simulator


@pytest.fixture
def client(engine: Simulator) -> Iterator[openai.OpenAI]:
    transport = httpx2.HTTPTransport(uds=str(engine.socket))
    with (
        httpx2.Client(transport=transport) as http,
        openai.OpenAI(base_url="http://engine/v1", api_key=engine.key, http_client=http) as client,
    ):
        yield client


def test_a_plain_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "hello"}], max_tokens=4
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert len((answer.choices[0].message.content or "").split()) == 4
    assert answer.choices[0].finish_reason == "length"


def test_a_streamed_chat_says_the_same_as_a_plain_one(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "hello"}]
    )
    stream = client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "hello"}], stream=True
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage is not None
    assert plain.usage is not None
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens == 6


def test_a_completion_with_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=BASE, prompt="hello", max_tokens=2, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.top_logprobs is not None
    assert [len(top) for top in logprobs.top_logprobs] == [4, 4]


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="nope", prompt="hello")


def test_a_wrong_key_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
