"""Streams that end otherwise than they should: who hears what, and what is metered."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from serving.gateway.tests import raw
from serving.gateway.tests.journals import checkpoints, facts
from serving.gateway.tests.stack import Engine, Stack, Tenant, until

CHAT = "/v1/chat/completions"


def streamed(tenant: Tenant, tokens: int, **fields: Any) -> bytes:
    body = {
        "model": tenant.models[0],
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
        **fields,
    }
    return raw.request(CHAT, body, key=tenant.key)


def plain(tenant: Tenant, tokens: int) -> bytes:
    return streamed(tenant, tokens, stream=False)


def events(body: bytes) -> list[Any]:
    """The events of a stream; every one must be whole and must be JSON."""
    *whole, rest = body.split(b"\n\n")
    assert rest == b""
    texts = [event.removeprefix(b"data: ") for event in whole if not event.startswith(b":")]
    return [text.decode() if text == b"[DONE]" else json.loads(text) for text in texts]


def content(found: list[Any]) -> str:
    chunks = [e for e in found if isinstance(e, dict) and e.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


@pytest.fixture
def slow(bare: Stack) -> Stack:
    """One engine that needs 50 ms a token."""
    bare.tenant("support")
    bare.engine("--token-ms", "50", "--journal-progress")
    bare.serve()
    return bare


@pytest.fixture
def pair(bare: Stack) -> Stack:
    """Two engines that hold the same adapters."""
    bare.tenant("support")
    bare.engine()
    bare.engine()
    bare.serve()
    return bare


@pytest.fixture
def streaming(slow: Stack) -> Iterator[socket.socket]:
    """A stream of 200 tokens of which the first have come."""
    with raw.connected(slow.port) as connection:
        connection.sendall(streamed(slow.tenants[0], 200))
        data = connection.recv(65536)
        while data.count(b"data: ") < 4:
            data += connection.recv(65536)
        yield connection


def test_a_client_that_leaves_ends_the_engines_work_within_a_second(
    slow: Stack, streaming: socket.socket
) -> None:
    streaming.close()
    started = time.monotonic()
    ended = until(lambda: slow.engines[0].lines("end"), seconds=5, what="the abort")[0]
    assert time.monotonic() - started <= 1.0
    assert ended["ended"] == "aborted"
    settled = until(lambda: facts(slow.home))
    assert len(settled) == 1
    assert settled[0].completeness == "aborted"
    assert settled[0].finish_reason == "client_gone"
    assert ended["tokens"] - 2 <= settled[0].quantities["output"] <= ended["tokens"]
    until(lambda: slow.slots_held() == 0, what="the slot's return")


def test_a_client_that_leaves_before_the_first_byte_ends_the_engines_work_too(bare: Stack) -> None:
    tenant = bare.tenant("support")
    engine = bare.engine("--first-token-ms", "5000")
    bare.serve()
    for request in (plain(tenant, 5), streamed(tenant, 5)):
        with raw.connected(bare.port) as connection:
            connection.sendall(request)
            begun = len(engine.lines("end"))
            until(lambda: len(engine.lines("begin")) > len(engine.lines("end")))
        until(lambda: len(engine.lines("end")) > begun, seconds=1.5, what="the abort")  # noqa: B023
    settled = until(lambda: len(facts(bare.home)) == 2 and facts(bare.home))
    assert {fact.completeness for fact in settled} == {"unknown"}
    assert all(fact.quantities["output"] == 0 for fact in settled)
    until(lambda: bare.slots_held() == 0)


def test_a_killed_engine_ends_the_stream_with_an_error_event_and_what_was_sent_is_metered(
    slow: Stack, streaming: socket.socket
) -> None:
    slow.engines[0].kill()
    rest = raw.read_all_until(streaming, b"0\r\n\r\n")
    assert b"[DONE]" not in rest
    assert b'"code":"engine_failed_midway"' in rest
    fact = until(lambda: facts(slow.home))[0]
    assert fact.completeness == "aborted"
    assert fact.billable
    assert fact.quantities["output"] >= 2
    assert fact.quantities["output"] <= len(slow.engines[0].lines("token"))


def test_an_engine_killed_before_its_first_byte_is_replaced_by_another(pair: Stack) -> None:
    tenant = pair.tenants[0]
    for engine in pair.engines:
        engine.order(kind="crash", at_tokens=0)
    answer = raw.ask(pair.port, plain(tenant, 3))
    assert answer.status == 502
    assert answer.code == "engine_failed"
    fact = until(lambda: facts(pair.home))[0]
    assert (fact.completeness, fact.billable) == ("unknown", False)


@pytest.mark.parametrize("stream", [True, False])
def test_one_crash_before_the_first_byte_is_not_seen_by_the_client(
    pair: Stack, *, stream: bool
) -> None:
    tenant = pair.tenants[0]
    first = pair.asked_first(tenant)
    first.order(kind="crash", at_tokens=0)
    answer = raw.ask(pair.port, streamed(tenant, 3, stream=stream))
    assert answer.status == 200
    settled = until(lambda: len(facts(pair.home)) >= 2 and facts(pair.home))
    assert len(settled) == 2
    assert settled[-1].completeness == "final"
    assert settled[-1].incarnation != first.incarnation


def test_an_engine_that_lost_an_adapter_is_passed_over(pair: Stack) -> None:
    tenant = pair.tenants[0]
    first = pair.asked_first(tenant)
    first.order(kind="status", status=404, times=0)
    for _ in range(5):
        assert raw.ask(pair.port, plain(tenant, 2)).status == 200
    refusals = list(first.lines("begin"))
    assert len(refusals) <= 2


def test_no_replica_with_the_adapter_is_a_503_that_says_when_to_come_back(bare: Stack) -> None:
    tenant = bare.tenant("support")
    bare.engine()
    bare.serve()
    bare.publish(engines=[])
    until(lambda: bare.gauge(0, "tessera_gateway_routes_sequence") == bare.sequence)
    answer = raw.ask(bare.port, plain(tenant, 2))
    assert (answer.status, answer.code) == (503, "model_not_ready")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "cut", "at_tokens": 2},
        {"kind": "garbage", "at_tokens": 2},
        {"kind": "endless_line", "at_tokens": 2, "size": 3_000_000},
        {"kind": "huge_header"},
        {"kind": "negative_usage"},
        {"kind": "stream_error", "at_tokens": 2},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_a_hostile_engine_is_bounded_and_answered(
    bare: Stack, fault: dict[str, Any], *, stream: bool
) -> None:
    tenant = bare.tenant("support")
    engine = bare.engine()
    bare.serve()
    engine.order(**fault)
    answer = raw.ask(bare.port, streamed(tenant, 8, stream=stream))
    if answer.status == 200 and stream:
        found = events(answer.body)
        assert found[-1] != "[DONE]"
        assert "error" in found[-1]
    else:
        assert answer.status in {502, 503}
        assert answer.json["error"]["type"] == "server_error"
    after = until(lambda: (a := raw.ask(bare.port, plain(tenant, 2))).status == 200 and a)
    assert after.json["usage"]["completion_tokens"] == 2
    until(lambda: bare.slots_held() == 0)


def test_a_full_engine_is_a_503_with_a_delay_and_a_reason(served: Stack) -> None:
    served.engines[0].order(kind="status", status=503, times=0)
    answer = raw.ask(served.port, plain(served.tenants[0], 2))
    assert (answer.status, answer.code) == (503, "engine_busy")
    assert answer.headers["retry-after"] == "1"


def test_an_engine_that_says_nothing_is_given_up(bare: Stack) -> None:
    tenant = bare.tenant("support")
    engine = bare.engine("--token-ms", "1")
    bare.serve(TESSERA_GATEWAY_FIRST_TOKEN_SECONDS="1", TESSERA_GATEWAY_IDLE_SECONDS="1")
    engine.order(kind="stall", at_tokens=3)
    found = events(raw.ask(bare.port, streamed(tenant, 20)).body)
    assert found[-1]["error"]["code"] == "engine_failed_midway"
    until(lambda: bare.slots_held() == 0)


def test_a_slow_reader_slows_the_engine_down_and_costs_no_memory(bare: Stack) -> None:
    tenant = bare.tenant("support")
    engine = bare.engine("--token-ms", "0", "--journal-progress")
    bare.serve()
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", bare.port))
        connection.sendall(streamed(tenant, 4000, n=4))
        until(lambda: engine.lines("token"))
        before = bare.rss_bytes()
        time.sleep(1.0)
        assert bare.rss_bytes() - before < 5_000_000
        until(lambda: bare.gauge(0, "tessera_gateway_streams") == 1)
        connection.settimeout(30)
        assert b"[DONE]" in raw.read_all_until(connection, b"0\r\n\r\n")


def test_a_revoked_keys_streams_end_with_an_error_event(
    slow: Stack, streaming: socket.socket
) -> None:
    tenant = slow.tenants[0]
    slow.change_key(tenant.key_id, "active = false")
    started = time.monotonic()
    slow.push_revocation(tenant.key_id)
    rest = raw.read_all_until(streaming, b"0\r\n\r\n")
    assert time.monotonic() - started < 2
    assert b'"code":"invalid_api_key"' in rest
    assert b"[DONE]" not in rest
    assert raw.ask(slow.port, plain(tenant, 1)).status == 401


def test_a_revocation_whose_push_is_lost_still_ends_streams_and_requests(
    slow: Stack, streaming: socket.socket
) -> None:
    tenant = slow.tenants[0]
    started = time.monotonic()
    slow.change_key(tenant.key_id, "active = false")
    assert b'"code":"invalid_api_key"' in raw.read_all_until(streaming, b"0\r\n\r\n")
    assert time.monotonic() - started < 10
    assert raw.ask(slow.port, plain(tenant, 1)).status == 401


def test_hammering_a_key_while_it_is_revoked_stops_within_five_seconds(served: Stack) -> None:
    tenant = served.tenants[0]
    successes: list[float] = []
    stop = threading.Event()

    def hammer() -> None:
        with raw.connected(served.port) as connection:
            while not stop.is_set():
                started = time.monotonic()
                connection.sendall(plain(tenant, 1))
                if raw.read_answer(connection).status == 200:
                    successes.append(started)
                time.sleep(0.01)

    threads = [threading.Thread(target=hammer) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: len(successes) > 20)
    served.change_key(tenant.key_id, "active = false")
    revoked_at = time.monotonic()
    time.sleep(6)
    stop.set()
    for thread in threads:
        thread.join()
    assert max(successes) - revoked_at <= 5.0


def test_slots_of_a_pool_are_never_exceeded_and_who_cannot_wait_is_told(bare: Stack) -> None:
    tenant = bare.tenant("support")
    engine = bare.engine("--token-ms", "100", slots=2)
    bare.serve()
    hurried = {"model": "support", "messages": [{"role": "user", "content": "hi"}]}
    in_a_hurry = raw.request(
        CHAT, hurried, key=tenant.key, headers={"x-stainless-read-timeout": "1.2"}
    )
    with raw.connected(bare.port) as one, raw.connected(bare.port) as two:
        for connection in (one, two):
            connection.sendall(streamed(tenant, 40))
            connection.recv(65536)
        answer = raw.ask(bare.port, in_a_hurry)
        assert (answer.status, answer.code) == (503, "queue_timeout")
        assert int(answer.headers["retry-after"]) >= 1
        assert len(engine.lines("begin")) == 2
        assert raw.ask(bare.port, plain(tenant, 1)).status == 200  # it waited for one of them
        assert engine.lines("end")
    until(lambda: bare.slots_held() == 0)


def test_checkpoints_follow_a_stream_once_a_second(slow: Stack, streaming: socket.socket) -> None:
    found = until(lambda: len(checkpoints(slow.home)) >= 2 and checkpoints(slow.home))
    counts = [counts["output"] for _, counts in found]
    assert counts == sorted(counts)
    assert counts[-1] <= len(slow.engines[0].lines("token"))


def test_finished_answers_are_metered_as_the_engine_counted(served: Stack) -> None:
    tenant = served.tenants[0]
    for tokens in (1, 7, 13):
        raw.ask(served.port, plain(tenant, tokens))
        raw.ask(served.port, streamed(tenant, tokens, n=2))
    settled = until(lambda: len(facts(served.home)) == 6 and facts(served.home))
    counted: dict[str, dict[str, Any]] = {}
    for line in served.engines[0].lines():
        counted.setdefault(line["request"].rpartition("req_")[2], {}).update(line)
    assert {fact.completeness for fact in settled} == {"final"}
    for fact in settled:
        line = counted[fact.event_id]
        assert fact.quantities["output"] == line["tokens"]
        assert fact.quantities["input"] == line["prompt_tokens"]
        assert (fact.organization, fact.model) == (tenant.organization, "support")


def test_an_engine_that_answers_in_another_name_is_not_believed(served: Stack) -> None:
    """No request is ever answered by the base model in an adapter's name."""
    engine: Engine = served.engines[0]
    tenant = served.tenants[0]
    impostor = served.engine(replica="impostor", names=("base",))
    engine.kill()
    served.publish(engines=[impostor])
    until(lambda: served.gauge(0, "tessera_gateway_routes_sequence") == served.sequence)
    answer = raw.ask(served.port, plain(tenant, 2))
    assert answer.status == 503
