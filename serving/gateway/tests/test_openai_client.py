"""The official client, unmodified, against a gateway process in front of the engine simulator."""

from __future__ import annotations

import openai
import pytest

from serving.gateway.tests.stack import Stack

HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello?"}]


def test_models_lists_what_the_key_may_call_and_nothing_else(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["support"]
    assert client.models.retrieve("support").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("legal")


def test_a_plain_chat_is_answered_in_the_customers_names(
    client: openai.OpenAI, shared: Stack
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="support", messages=HELLO, max_tokens=5, temperature=0
    )
    answer = raw.parse()
    assert answer.model == "support"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"
    assert raw.headers["x-request-id"].startswith("req_")
    assert shared.tenants[0].organization not in raw.text


def test_a_streamed_chat_has_usage_only_where_it_was_asked_for(client: openai.OpenAI) -> None:
    plain = list(
        client.chat.completions.create(model="support", messages=HELLO, max_tokens=4, stream=True)
    )
    assert all(chunk.usage is None for chunk in plain)
    assert all(chunk.choices for chunk in plain)
    counted = list(
        client.chat.completions.create(
            model="support",
            messages=HELLO,
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert [chunk.usage is not None for chunk in counted[-2:]] == [False, True]
    assert counted[-1].usage is not None
    assert counted[-1].usage.completion_tokens == 4
    text = "".join(c.choices[0].delta.content or "" for c in plain)
    assert text == "".join(c.choices[0].delta.content or "" for c in counted[:-1])


def test_completions_plain_and_streamed_say_the_same(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="support", prompt="Once", max_tokens=6)
    parts = client.completions.create(model="support", prompt="Once", max_tokens=6, stream=True)
    assert whole.choices[0].text == "".join(part.choices[0].text for part in parts)


def test_several_choices_stream_side_by_side(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="support", messages=HELLO, max_tokens=3, n=3, stream=True
    )
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1, 2}


async def test_the_asynchronous_client_works_as_well(shared: Stack) -> None:
    async with openai.AsyncOpenAI(
        api_key=shared.tenants[0].key, base_url=f"{shared.url}/v1", max_retries=0
    ) as client:
        answer = await client.chat.completions.create(model="support", messages=HELLO)
        assert answer.choices[0].message.content
        stream = await client.chat.completions.create(
            model="support", messages=HELLO, stream=True, max_tokens=3
        )
        assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "length"


def test_an_answer_can_be_sent_back_as_the_history_of_the_next_question(
    client: openai.OpenAI,
) -> None:
    first = client.chat.completions.create(model="support", messages=HELLO).choices[0].message
    again = client.chat.completions.create(
        model="support",
        messages=[*HELLO, first, {"role": "user", "content": "And?"}],  # type: ignore[list-item]
    )
    assert again.choices[0].message.content


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "nothing"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_request"),
        ({"extra_body": {"priority": -5}}, openai.BadRequestError, "field_refused"),
        ({"extra_body": {"colour": "red"}}, openai.BadRequestError, "unknown_field"),
    ],
)
def test_refusals_arrive_as_the_clients_own_errors(
    client: openai.OpenAI, change: dict[str, object], error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "support", "messages": HELLO, **change})  # type: ignore[call-overload]
    assert caught.value.code == code
    assert caught.value.request_id


def test_a_wrong_key_is_an_authentication_error(shared: Stack) -> None:
    with (
        openai.OpenAI(api_key="tsr_live_x", base_url=f"{shared.url}/v1", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_stock_fields_that_mean_nothing_here_are_accepted_and_kept_from_the_engine(
    client: openai.OpenAI,
) -> None:
    answer = client.chat.completions.create(
        model="support",
        messages=HELLO,
        user="someone",
        store=False,
        metadata={"a": "b"},
        safety_identifier="x",
        service_tier="auto",
    )
    assert answer.choices


def test_an_engines_refusal_is_about_the_request_and_in_the_customers_names(
    client: openai.OpenAI, shared: Stack
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="support", prompt="word " * 20_000)
    assert caught.value.code == "context_length_exceeded"
    assert shared.tenants[0].organization not in str(caught.value)


def test_a_limit_that_does_not_fit_behind_the_prompt_is_cut_to_what_is_left(
    client: openai.OpenAI,
) -> None:
    long = client.completions.create(model="support", prompt="word " * 3_000, max_tokens=4_000)
    assert long.choices[0].text
