from __future__ import annotations

import json
from typing import Any

import pytest

from serving.gateway.errors import BadRequest
from serving.gateway.fields import IGNORED, REFUSED, parse_chat, parse_completion

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def completion(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **fields}).encode()


def refusal(body: bytes, parse: Any = parse_chat) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(body)
    return caught.value


FORWARDED = {
    "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "n": 2, "presence_penalty": 1,
    "frequency_penalty": -1, "repetition_penalty": 1.1, "seed": 7, "min_tokens": 1,
    "ignore_eos": True, "stop": ["a", "b"], "stop_token_ids": [1], "logit_bias": {"5": -100},
    "logprobs": True, "top_logprobs": 3, "tool_choice": "auto", "parallel_tool_calls": False,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "response_format": {"type": "json_object"}, "stream": True,
}  # fmt: skip


@pytest.mark.parametrize("name", FORWARDED)
def test_forwarded_fields_reach_the_engine_as_they_came(name: str) -> None:
    rest = json.loads(parse_chat(chat(**{name: FORWARDED[name]})).rest)
    assert rest[name] == FORWARDED[name]


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_ignored_fields_are_accepted_and_dropped(name: str) -> None:
    assert name not in json.loads(parse_chat(chat(**{name: "x"})).rest)
    assert name not in json.loads(parse_completion(completion(**{name: {"a": 1}})).rest)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_fields_are_named(name: str) -> None:
    error = refusal(chat(**{name: 1}))
    assert (error.code, error.param) == ("field_refused", name)
    assert name in error.message


@pytest.mark.parametrize("name", ["colour", "Model", "a`b", "model\n"])
def test_unknown_fields_are_named(name: str) -> None:
    error = refusal(chat(**{name: 1}))
    assert (error.code, error.param) == ("unknown_field", name)


def test_an_unknown_field_within_a_message_is_named_with_its_place() -> None:
    error = refusal(chat(messages=[{"role": "user", "content": "x", "colour": 1}]))
    assert error.param == "messages[0].colour"


def test_what_is_ours_is_taken_out_and_known() -> None:
    wanted = parse_chat(
        chat(
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=5,
            max_completion_tokens=9,
            cache_salt="mine",
            n=3,
        )
    )
    rest = json.loads(wanted.rest)
    assert set(rest) == {"messages", "stream", "n"}
    assert (wanted.model, wanted.is_stream, wanted.wants_usage) == ("m", True, True)
    assert (wanted.limit, wanted.salt, wanted.choices) == (9, "mine", 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -0.1}, {"temperature": 2.1}, {"temperature": True}, {"temperature": "1"},
        {"top_p": 0}, {"top_p": 1.1}, {"top_k": -2}, {"min_p": 2}, {"n": 0}, {"n": 17}, {"n": True},
        {"n": 1.5}, {"presence_penalty": 3}, {"frequency_penalty": -3}, {"repetition_penalty": 0},
        {"seed": 2**63}, {"max_tokens": 0}, {"max_tokens": 2**63}, {"max_completion_tokens": -1},
        {"top_logprobs": 21}, {"logprobs": 5}, {"stop": [""]}, {"stop": ["x"] * 17}, {"stop": 5},
        {"stop": ["x" * 300]}, {"logit_bias": {"a": 1}}, {"logit_bias": {"1": 101}},
        {"logit_bias": {str(n): 0 for n in range(301)}}, {"stop_token_ids": [-1]},
        {"cache_salt": ""}, {"cache_salt": "x" * 257}, {"stream": "yes"},
        {"messages": []}, {"messages": [{"role": "root", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
        {"tool_choice": "any"}, {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"stream_options": {"continuous_usage_stats": True}},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused_with_the_field_named(fields: dict[str, Any]) -> None:
    error = refusal(chat(**fields))
    assert error.status == 400
    assert error.param is not None
    assert error.param.startswith(next(iter(fields)))


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "n", "stop", "seed", "logit_bias"])
def test_null_means_not_given(name: str) -> None:
    wanted = parse_chat(chat(**{name: None}))
    assert (wanted.limit, wanted.choices) == (None, 1)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b"\xff", "json"),
        (b'{"model":"\xff","messages":[]}', "json"),
        (b'{"model":"\\ud800"}', "json"),
        (b'{"temperature":NaN}', "json"),
        (b'{"a":1} trailing', "field_unknown"),
        (b"[]", "field_value"),
        (b"[" * 100_000, "field_value"),
        (b'{"metadata":' + b"[" * 100_000, "json_depth"),
        (b'{"messages":[{"role":"user","content":"x"}]}', "field_missing"),
        (b'{"model":"m"}', "field_missing"),
        (b'{"model":"","messages":[{"role":"user","content":"x"}]}', "field_missing"),
    ],
)
def test_what_is_no_request_is_refused_by_rule(body: bytes, rule: str) -> None:
    assert refusal(body).rule == rule


def test_the_last_of_two_equal_names_counts_here_and_upstream() -> None:
    wanted = parse_chat(b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}')
    assert wanted.model == "b"
    assert b'"a"' not in wanted.rest


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("x", 1), (["x", "y"], 2), ([1, 2, 3], 1), ([[1], [2], [3]], 3)],
)
def test_prompts_of_every_kind_are_counted(prompt: Any, count: int) -> None:
    assert parse_completion(completion(prompt=prompt)).prompts == count


@pytest.mark.parametrize("prompt", [[], ["x", 1], [[1], "x"], ["x"] * 65, [-1], 5, [1.5]])
def test_prompts_of_no_kind_are_refused(prompt: Any) -> None:
    assert refusal(completion(prompt=prompt), parse_completion).param is not None


def test_an_earlier_answer_may_come_back_as_a_message() -> None:
    message: dict[str, Any] = {
        "role": "assistant", "content": "x", "refusal": None, "annotations": None, "audio": None,
        "function_call": None, "tool_calls": [], "reasoning": None,
    }  # fmt: skip
    rest = json.loads(parse_chat(chat(messages=[message])).rest)
    assert rest["messages"] == [{"role": "assistant", "content": "x"}]


def schema(**fields: Any) -> bytes:
    return chat(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object", **fields}},
        }
    )


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"properties": value}
    return value


@pytest.mark.parametrize(
    "fields",
    [
        nested(500),
        {"enum": ["x"] * 5000},
        {"description": "x" * 100_000},
        {"pattern": "foo**"},
        {"pattern": "a" * 300},
        {"$ref": "http://169.254.169.254/"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_schemas_are_bounded_before_an_engine_compiles_them(fields: dict[str, Any]) -> None:
    assert refusal(schema(**fields)).rule == "schema"
    tool = {"type": "function", "function": {"name": "f", "parameters": fields}}
    assert refusal(chat(tools=[tool])).rule == "schema"


def test_an_ordinary_schema_passes() -> None:
    body = schema(properties={"a": {"type": "string", "pattern": "^[a-z]+$"}}, required=["a"])
    assert b"json_schema" in parse_chat(body).rest
