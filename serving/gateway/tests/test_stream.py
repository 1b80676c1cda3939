from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.connection import Garbage
from serving.gateway.stream import EventFilter, Meter, without_usage

ENGINE_NAME = "org--deployment--0123456789ab"


def events(*, wants_usage: bool = False, choices: int = 1) -> EventFilter:
    return EventFilter(
        engine_name=ENGINE_NAME,
        name='my "model"',
        wants_usage=wants_usage,
        meter=Meter(choices_per_prompt=choices),
    )


def chunk(
    text: str, tokens: int, *, index: int = 0, prompt: int = 7, finish: str | None = None
) -> bytes:
    """As vLLM 0.32 writes one."""
    body = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": ENGINE_NAME,
        "choices": [{
            "index": index, "delta": {"content": text}, "logprobs": None,
            "finish_reason": finish, "token_ids": None,
        }],
        "usage": {
            "prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens,
            "completion_tokens_details": None,
        },
    }  # fmt: skip
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def total(prompt: int, tokens: int) -> bytes:
    body = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": ENGINE_NAME,
        "choices": [],
        "usage": {
            "prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
        "system_fingerprint": "x",
    }  # fmt: skip
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def decoded(out: bytes) -> list[Any]:
    return [json.loads(event[6:]) for event in out.split(b"\n\n") if event]


def test_a_chunk_keeps_its_text_and_loses_what_is_the_engines() -> None:
    found = decoded(events().feed(chunk("hello", 1)))[0]
    assert found == {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": 'my "model"',
        "choices": [
            {"index": 0, "delta": {"content": "hello"}, "logprobs": None, "finish_reason": None}
        ],
    }  # fmt: skip


def test_the_total_is_passed_only_to_whom_asked_and_counted_always() -> None:
    for wants_usage, shown in ((False, 1), (True, 2)):
        filter_ = events(wants_usage=wants_usage)
        out = filter_.feed(chunk("a", 1) + total(7, 1) + DONE)
        assert len(decoded(out)) == shown
        assert filter_.is_done
        assert filter_.meter.quantities() == {"input": 7, "cached_input": 4, "output": 1}


@given(st.data(), st.text())
def test_bytes_may_be_cut_anywhere(data: st.DataObject, text: str) -> None:
    whole = chunk(text, 1) + b": ping\n\n" + chunk("b", 2, finish="stop") + total(7, 2) + DONE
    straight, pieces = events(), events()
    expected = straight.feed(whole)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    out = b"".join(
        pieces.feed(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)
    )
    assert out == expected
    assert pieces.meter.finish_reason == "stop"


@given(st.text())
def test_text_that_looks_like_json_is_only_text(text: str) -> None:
    tricky = f'{text}","usage":{{"prompt_tokens":0}},"model":"{ENGINE_NAME}",,"token_ids":null'
    found = decoded(events().feed(chunk(tricky, 3)))[0]
    assert found["choices"][0]["delta"]["content"] == tricky
    assert "usage" not in found


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b"data: \n\n",
        b"data: {}\n\n",
        b"nonsense\n\n",
        b"\n\n",
        b"event: x\ndata: {}\n\n",
        chunk("a", 1).replace(ENGINE_NAME.encode(), b"base"),
        chunk("a", -1),
        chunk("a", 2**60),
        chunk("a", 1).replace(b'"index":0', b'"index":-1'),
        chunk("a", 1).replace(b'"index":0', b'"index":true'),
        b"data: " + b"[" * 10_000 + b"\n\n",
        b"data: " + b"x" * 2_000_000,
    ],
    ids=range(13),
)
def test_what_no_engine_of_ours_sends_is_garbage(event: bytes) -> None:
    with pytest.raises(Garbage):
        events().feed(event)


def test_comments_pass_once_the_answer_has_begun_and_are_no_chunk() -> None:
    filter_ = events()
    assert filter_.feed(b": ping\n\n") == b""
    assert filter_.events == 0
    filter_.feed(chunk("a", 1))
    assert filter_.feed(b": ping\n\n") == b": ping\n\n"


def test_nothing_passes_behind_the_end_or_an_error() -> None:
    filter_ = events()
    assert filter_.feed(DONE + chunk("a", 1)) == b""
    failing = events()
    out = failing.feed(chunk("a", 1) + b'data: {"error":{"message":"x"}}\n\n' + chunk("b", 2))
    assert len(decoded(out)) == 1
    assert failing.error is not None


def test_choices_and_prompts_are_counted_apart_until_the_total_comes() -> None:
    filter_ = events(choices=2)
    for index, tokens in ((0, 1), (1, 1), (0, 2), (2, 5), (3, 1)):
        filter_.feed(chunk("x", tokens, index=index, prompt=7 if index < 2 else 11))
    assert filter_.meter.quantities() == {"input": 18, "cached_input": 0, "output": 9}
    filter_.feed(total(18, 10))
    assert filter_.meter.quantities() == {"input": 18, "cached_input": 4, "output": 10}


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":1,"usage":{"x":1}}',
        b'{"a":1,"usage":{"x":1},"b":2}',
        b'{"usage":{"x":1},"a":1}',
        b'{"a":1, "usage": {"x":1}}',
        b'{"a":1,"usage":{"x":{"y":1}}}',
        b'{"a":1,"usage":{"y":{"z":1},"x":1},"b":2}',
    ],
)
def test_usage_is_cut_out_wherever_it_stands(payload: bytes) -> None:
    wanted = json.loads(payload)
    del wanted["usage"]
    assert json.loads(without_usage(payload)) == wanted


def outcome(filter_: EventFilter, data: bytes) -> bytes | str:
    try:
        return filter_.feed(data)
    except Garbage:
        return "garbage"


@given(text=st.text(max_size=40), tokens=st.integers(0, 9999), index=st.integers(0, 3))
def test_an_event_like_those_before_it_comes_out_as_if_it_were_the_first(
    text: str, tokens: int, index: int
) -> None:
    event = chunk(text, tokens, index=index)
    known = events(choices=4)
    known.feed(chunk("first", 1))
    fresh = events(choices=4)
    assert outcome(known, event) == outcome(fresh, event)
    assert known.meter.quantities()["output"] == fresh.meter.quantities()["output"] + (
        1 if index else 0
    )


def test_logprobs_have_the_members_that_openai_publishes_in_every_event() -> None:
    found = b'{"content":[{"token":"x","logprob":-1.0,"bytes":[120],"top_logprobs":[]}]}'
    event = chunk("x", 2).replace(b'"logprobs":null', b'"logprobs":' + found)
    filter_ = events()
    for out in (filter_.feed(event), filter_.feed(event)):
        assert decoded(out)[0]["choices"][0]["logprobs"] == {"refusal": None, **json.loads(found)}


@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_damage_is_met_alike_by_what_is_usual_and_what_is_not(place: int, byte: int) -> None:
    event = bytearray(chunk("hello {} world", 12))
    event[place % len(event)] = byte
    known = events()
    known.feed(chunk("first", 1))
    assert outcome(known, bytes(event)) == outcome(events(), bytes(event))


def test_an_event_in_another_models_name_is_garbage_wherever_the_name_stands() -> None:
    known = events()
    known.feed(chunk("first", 1))
    other = chunk("second", 2).replace(b',"usage"', b',"model":"base","usage"')
    with pytest.raises(Garbage):
        known.feed(other)


def test_an_engine_that_says_more_was_cached_than_was_read_pays_nobody() -> None:
    made = events()
    made.feed(total(prompt=2, tokens=1))
    assert made.meter.quantities() == {"input": 2, "cached_input": 2, "output": 1}


def test_what_is_counted_beyond_the_hold_is_not_believed() -> None:
    meter = Meter(most=(5, 3))
    made = EventFilter(engine_name=ENGINE_NAME, name="m", wants_usage=False, meter=meter)
    made.feed(chunk("a", 3, prompt=5))
    assert (meter.quantities(), meter.is_beyond) == (
        {"input": 5, "cached_input": 0, "output": 3},
        False,
    )
    made.feed(chunk("b", 4, prompt=5))
    assert meter.is_beyond
    made.feed(total(prompt=900, tokens=900))
    assert meter.quantities() == {"input": 5, "cached_input": 4, "output": 3}
    assert meter.is_beyond
