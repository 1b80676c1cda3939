"""A05-A08: bodies that steer an engine, are absurd, never end, or are somebody's program.

Over raw sockets; the engine's own journal is the witness.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from serving.gateway.fields import parse_chat
from serving.gateway.tests import raw
from serving.gateway.tests.attacks import CHAT, HELLO, LEAST, cpu_seconds, rss_bytes
from serving.gateway.tests.stack import Stack

ABSURD: dict[str, dict[str, Any]] = {
    "choices": {"n": 10**9},
    "best of": {"best_of": 10**6},
    "tokens": {"max_tokens": 2**63},
    "chat logprobs": {"logprobs": 10**6},
    "top logprobs": {"top_logprobs": 10**6},
    "stops": {"stop": ["xxx"] * 10**5},
    "a long stop": {"stop": "x" * 10**6},
    "stop tokens": {"stop_token_ids": [1] * 10**5},
    "biases": {"logit_bias": {str(n): 1 for n in range(10**5)}},
    "cold": {"temperature": -1},
    "a hot truth": {"temperature": True},
    "a true number": {"n": True},
    "an infinite number": {"temperature": float("inf")},
    "no tokens": {"max_tokens": -1},
    "half a token": {"max_tokens": 1.5},
    "many tools": {"tools": [{"type": "function", "function": {"name": "f"}}] * 10**4},
    "many messages": {"messages": HELLO["messages"] * 10**4},
    "a long salt": {"cache_salt": "x" * 10**6},
}
DEEP = '{"properties":{"a":' * 500 + "{}" + "}}" * 500  # deeper than Python writes
LOOP = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
HOSTILE_SCHEMAS: dict[str, dict[str, Any]] = {
    "backtracking": {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "(a+)+$"}},
    },
    "no expression": {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "foo**"}},
    },
    "huge enum": {"enum": [f"{n:0100}" for n in range(10_000)]},
    "loop": LOOP,
    "self": {"$ref": "#"},
    "elsewhere": {"$ref": "http://169.254.169.254/"},
    "deep": {"not": "DEEP"},
    "wide": {"type": "object", "properties": {f"p{n}": {} for n in range(10**5)}},
    "huge counts": {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
    "long pattern": {"type": "string", "pattern": "a{1,1000}" * 100},
    "short pattern": {"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"},
    "dangling": {"$ref": "#/$defs/nothing"},
}
ACCEPTED = {"backtracking", "huge counts"}  # small, and no engine is harmed: test_real_engine.py


def formatted(schema: dict[str, Any]) -> dict[str, Any]:
    wanted = {"name": "x", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


def tooled(schema: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "x", "parameters": schema}}]}


@pytest.mark.parametrize(
    "field",
    ["api_base", "base_url", "lora_request", "kv_transfer_params", "priority", "request_id",
     "vllm_xargs", "chat_template", "chat_template_kwargs", "prompt_embeds", "mm_processor_kwargs"],
)  # fmt: skip
def test_fields_that_steer_an_engine_are_refused_by_name(shared: Stack, field: str) -> None:
    """A05"""
    begun = shared.engines[0].lines("begin")
    data = raw.request(CHAT, {**HELLO, field: "x"}, key=shared.tenants[0].key)
    answer = raw.ask(shared.port, data)
    assert answer.status == 400
    assert answer.json["error"]["param"] == field
    assert field in answer.json["error"]["message"]
    assert shared.engines[0].lines("begin") == begun


@pytest.mark.parametrize("change", ABSURD.values(), ids=ABSURD.keys())
def test_absurd_values_are_refused_fast_and_leave_no_memory_behind(
    shared: Stack, change: dict[str, object]
) -> None:
    """A06: 400 for less than 50 ms of CPU, receiving included, and less than 5 MB kept."""
    data = raw.request(CHAT, {**HELLO, **change}, key=shared.tenants[0].key)
    raw.ask(shared.port, data)  # whatever is made once is made now
    begun = len(shared.engines[0].lines("begin"))
    pid = shared.gateways[0].pid
    memory, cpu = rss_bytes(pid), cpu_seconds(pid)
    answer = raw.ask(shared.port, data)
    assert cpu_seconds(pid) - cpu < 0.05
    assert answer.status == 400
    if "Infinity" not in data.decode():  # that is no JSON at all
        assert answer.json["error"]["param"].partition("[")[0] == next(iter(change))
    assert rss_bytes(pid) - memory < 5_000_000
    assert len(shared.engines[0].lines("begin")) == begun


@pytest.mark.parametrize(
    "change", [{"prompt": [[1]] * 10**5}, {"prompt": ["x"] * 65}, {"logprobs": 10**6}]
)
def test_absurd_completions_are_refused(shared: Stack, change: dict[str, object]) -> None:
    """A06"""
    body = {"model": "support", **LEAST["/v1/completions"], **change}
    answer = raw.ask(shared.port, raw.request("/v1/completions", body, key=shared.tenants[0].key))
    assert answer.status == 400
    assert answer.json["error"]["param"] == next(iter(change))


def test_nan_is_not_json(shared: Stack) -> None:
    """A06"""
    body = json.dumps({**HELLO, "temperature": float("nan")}).encode()
    answer = raw.ask(shared.port, raw.request(CHAT, body, key=shared.tenants[0].key))
    assert answer.status == 400


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(shared: Stack) -> None:
    """A07"""
    head = raw.request(
        CHAT, b"", key=shared.tenants[0].key, headers={"content-length": "200000000"}
    )
    with raw.connected(shared.port) as connection:
        connection.sendall(head)
        assert raw.read_answer(connection).status == 413


def test_chunks_that_never_end_are_cut_at_the_limit(shared: Stack) -> None:
    """A07"""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {shared.tenants[0].key}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    ).encode()
    pid = shared.gateways[0].pid
    before = rss_bytes(pid)
    with raw.connected(shared.port) as connection:
        connection.sendall(head)
        piece = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        for _ in range(100):
            try:
                connection.sendall(piece)
            except OSError:
                break
        assert raw.read_answer(connection).status == 413
    assert rss_bytes(pid) - before < 20_000_000


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"messages":' + b"[" * 100_000]
)
def test_deep_json_is_refused(shared: Stack, text: bytes) -> None:
    """A07"""
    answer = raw.ask(shared.port, raw.request(CHAT, text, key=shared.tenants[0].key))
    assert answer.status == 400
    deep = b'{"model":"support","metadata":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    answer = raw.ask(shared.port, raw.request(CHAT, deep, key=shared.tenants[0].key))
    assert answer.status == 400


def test_compressed_bodies_are_refused(shared: Stack) -> None:
    """A07"""
    data = raw.request(
        CHAT, b"\x1f\x8b", key=shared.tenants[0].key, headers={"content-encoding": "gzip"}
    )
    assert raw.ask(shared.port, data).status == 415


def test_others_are_served_while_bodies_are_thrown_at_the_door(shared: Stack) -> None:
    """A07: 100 ordinary requests beside a flood of the above: all answered, memory bounded."""
    key = shared.tenants[0].key
    floods = [
        raw.request(CHAT, b"[" * 1_000_000, key=key),
        raw.request(CHAT, b"x" * 4_000_000, key=key),
        raw.request(CHAT, b'{"messages":' + b"[" * 100_000, key=key),
        raw.request(CHAT, b"", key=key, headers={"content-length": "200000000"}),
    ]
    pid = shared.gateways[0].pid
    memory = rss_bytes(pid)

    def throw(number: int) -> int:
        return raw.ask(shared.port, floods[number % len(floods)]).status

    def serve(_: int) -> tuple[int, float]:
        started = time.monotonic()
        status = raw.ask(shared.port, raw.request(CHAT, HELLO, key=key)).status
        return status, time.monotonic() - started

    with ThreadPoolExecutor(4) as attackers, ThreadPoolExecutor(2) as customers:
        thrown = [attackers.submit(throw, number) for number in range(60)]
        served = [
            customer.result() for customer in [customers.submit(serve, n) for n in range(100)]
        ]
        assert {flood.result() for flood in thrown} == {400, 413}
    assert {status for status, _ in served} == {200}
    assert sorted(seconds for _, seconds in served)[98] < 1.0
    assert rss_bytes(pid) - memory < 40_000_000


@pytest.mark.parametrize("place", [formatted, tooled])
@pytest.mark.parametrize("name", HOSTILE_SCHEMAS)
def test_a_hostile_schema_is_refused_or_harmless(shared: Stack, name: str, place: Any) -> None:
    """A08: what engines do with those let through is in ``test_real_engine.py``."""
    schema = HOSTILE_SCHEMAS[name]
    key = shared.tenants[0].key
    body = json.dumps({**HELLO, **place(schema)}).replace('"DEEP"', DEEP)
    data = raw.request(CHAT, body.encode(), key=key)
    pid = shared.gateways[0].pid
    cpu = cpu_seconds(pid)
    answer = raw.ask(shared.port, data)
    assert cpu_seconds(pid) - cpu < 0.1
    assert answer.status == (200 if name in ACCEPTED else 400), answer.body
    assert raw.ask(shared.port, raw.request(CHAT, HELLO, key=key)).status == 200


def test_no_pattern_of_a_customers_is_ever_run_here() -> None:
    """A08: compiled to see that it is one; matching is where backtracking bites."""
    body = {**HELLO, **formatted(HOSTILE_SCHEMAS["backtracking"])}
    body["messages"] = [{"role": "user", "content": "a" * 100_000 + "!"}]
    started = time.process_time()
    parse_chat(json.dumps(body).encode())
    assert time.process_time() - started < 0.05
