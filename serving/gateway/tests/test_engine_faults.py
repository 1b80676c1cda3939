"""Engines that die, hang, crawl or refuse: F13 to F17 on a living gateway."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from serving.gateway.tests import raw
from serving.gateway.tests.journals import facts
from serving.gateway.tests.stack import Engine, Stack, until
from serving.gateway.tests.test_streams import content, events, plain, streamed


@pytest.fixture
def pair(bare: Stack) -> Stack:
    """Two engines of 20 ms a token that hold the same adapters; not serving yet."""
    bare.tenant("support")
    for _ in range(2):
        bare.engine("--token-ms", "20", "--journal-progress")
    return bare


@contextmanager
def stream(stack: Stack, tokens: int) -> Iterator[socket.socket]:
    """A stream of which the first tokens have come."""
    with raw.connected(stack.port) as connection:
        connection.sendall(streamed(stack.tenants[0], tokens))
        data = connection.recv(65536)
        while data.count(b"data: ") < 3:
            data += connection.recv(65536)
        yield connection


def asked(engine: Engine) -> int:
    """How many customers' requests it took; probes of ours are none."""
    return sum(line["request"] != "probe" for line in engine.lines("begin"))


def ejected(stack: Stack, engine: Engine) -> bool:
    name = f'tessera_gateway_replica_ejected{{replica="{engine.replica}"}}'
    return stack.gauge(0, name) == 1


def busy_one(stack: Stack) -> Engine:
    """The engine on which something is under way."""
    [engine] = [e for e in stack.engines if len(e.lines("begin")) > len(e.lines("end"))]
    return engine


def other(stack: Stack, engine: Engine) -> Engine:
    return next(one for one in stack.engines if one is not engine)


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_an_engine_that_dies_in_the_middle_is_ejected_and_nothing_is_sent_twice(
    pair: Stack, tokens: int
) -> None:
    """F14: an error event, no retry, what went out is charged, no more requests to the dead."""
    pair.serve()
    dying = pair.asked_first(pair.tenants[0])
    living = other(pair, dying)
    dying.order(kind="crash", at_tokens=tokens)
    found = events(raw.ask(pair.port, streamed(pair.tenants[0], 50)).body)
    assert found[-1]["error"]["code"] == "engine_failed_midway"
    assert len(content(found).split()) <= tokens
    assert asked(living) == 0
    settled = until(lambda: len(facts(pair.home)) == 2 and facts(pair.home))
    assert (settled[-1].billable, settled[-1].completeness) == (True, "aborted")
    assert settled[-1].quantities["output"] == tokens
    until(lambda: ejected(pair, dying), seconds=3, what="the ejection")
    for _ in range(5):
        assert raw.ask(pair.port, plain(pair.tenants[0], 1)).status == 200
    assert asked(living) == 5
    until(lambda: pair.slots_held() == 0)


def test_a_request_that_kills_engines_is_not_shown_to_all_of_them(bare: Stack) -> None:
    """F13: tried once elsewhere, then the client hears of it; nothing is charged."""
    tenant = bare.tenant("support")
    for _ in range(4):
        bare.engine().order(kind="crash", at_tokens=0, times=0)
    bare.serve()
    answer = raw.ask(bare.port, plain(tenant, 5))
    assert (answer.status, answer.code) == (502, "engine_failed")
    until(lambda: sum(engine.process.poll() is not None for engine in bare.engines) == 2)
    [fact] = until(lambda: facts(bare.home))
    assert (fact.billable, fact.completeness) == (False, "unknown")


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_wedged_engine_is_ejected_though_its_health_is_good(
    pair: Stack, *, is_stream: bool
) -> None:
    """F15: no request is lost, and no new one goes there."""
    tenant = pair.tenants[0]
    pair.serve(TESSERA_GATEWAY_FIRST_TOKEN_SECONDS="1", TESSERA_GATEWAY_ANSWER_SECONDS="1")
    wedged = pair.asked_first(tenant)
    wedged.order(kind="wedged", times=0)
    wedged.request("GET", "/health")  # says 200
    started = time.monotonic()
    assert raw.ask(pair.port, streamed(tenant, 3, stream=is_stream)).status == 200
    assert time.monotonic() - started < 10, "given up soon after its limit"
    until(lambda: ejected(pair, wedged), seconds=2, what="the ejection")
    started = time.monotonic()
    for _ in range(10):
        assert raw.ask(pair.port, plain(tenant, 1)).status == 200
    assert time.monotonic() - started < 5, "nobody waits for it any more"
    assert asked(wedged) == 1


def test_a_stopped_engine_is_noticed_because_others_get_on(pair: Stack) -> None:
    """F15: SIGSTOP. Long before any request's own limit; who waits there is served elsewhere, and a
    probe that is answered opens it again.
    """
    tenant = pair.tenants[0]
    pair.serve(TESSERA_GATEWAY_QUIET_SECONDS="1")
    with ExitStack() as open_streams:
        open_streams.enter_context(stream(pair, 400))
        stopped = busy_one(pair)
        living = other(pair, stopped)
        while not living.lines("begin"):  # until load has spread
            open_streams.enter_context(stream(pair, 400))
        os.kill(stopped.process.pid, signal.SIGSTOP)
        try:
            waiting = open_streams.enter_context(raw.connected(pair.port))
            before = len(living.lines("begin"))
            waiting.sendall(streamed(tenant, 2, n=1))
            until(lambda: ejected(pair, stopped), seconds=6, what="the ejection")
            for _ in range(5):
                assert raw.ask(pair.port, plain(tenant, 1)).status == 200
            assert len(living.lines("begin")) >= before + 5
            assert b"[DONE]" in raw.read_all_until(waiting, b"0\r\n\r\n")
        finally:
            os.kill(stopped.process.pid, signal.SIGCONT)
        until(lambda: not ejected(pair, stopped), seconds=20, what="the return")


def test_a_pool_whose_engines_are_all_gone_says_so_at_once(pair: Stack) -> None:
    """F13: 503 with Retry-After, no engine is hammered, nothing is charged."""
    pair.serve()
    for engine in pair.engines:
        engine.kill()
    tenant = pair.tenants[0]
    answers = [raw.ask(pair.port, plain(tenant, 1)) for _ in range(30)]
    assert {(answer.status, answer.code) for answer in answers} == {(503, "engine_unreachable")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    until(lambda: pair.counter("tessera_gateway_endings_total") == 30)
    assert pair.counter("tessera_gateway_upstream_failures_total") == 2
    settled = until(lambda: len(facts(pair.home)) == 30 and facts(pair.home))
    assert not any(fact.billable for fact in settled)
    until(lambda: pair.slots_held() == 0)


@pytest.mark.parametrize("status", [429, 503])
def test_engines_that_are_full_shed_with_a_delay_and_are_not_ejected(
    pair: Stack, status: int
) -> None:
    """F16: 503 and Retry-After, never 429, which is the tenant's own; retries are bounded."""
    tenant = pair.tenants[0]
    pair.serve()
    for engine in pair.engines:
        engine.order(kind="status", status=status, times=0)
    answers = [raw.ask(pair.port, plain(tenant, 1)) for _ in range(60)]
    assert {(answer.status, answer.code) for answer in answers} == {(503, "engine_busy")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    until(lambda: pair.counter("tessera_gateway_endings_total") == 60)
    tried = 60 + retried(pair, "made")
    assert tried <= 60 * 1.2 + 15, "a sick pool is not hammered"
    assert retried(pair, "refused") > 0
    assert not any(ejected(pair, engine) for engine in pair.engines)
    for engine in pair.engines:
        engine.request("DELETE", "/sim/faults")
    assert raw.ask(pair.port, plain(tenant, 1)).status == 200


def test_an_engine_that_crawls_is_cut_off_at_the_idle_limit(pair: Stack) -> None:
    """F16: a token every 10 s. An error event, what came is charged, the place is free again."""
    tenant = pair.tenants[0]
    pair.serve(TESSERA_GATEWAY_IDLE_SECONDS="1")
    pair.asked_first(tenant).order(kind="slow", token_ms=10_000)
    started = time.monotonic()
    found = events(raw.ask(pair.port, streamed(tenant, 5)).body)
    assert time.monotonic() - started < 5
    assert found[-1]["error"]["code"] == "engine_failed_midway"
    settled = until(lambda: len(facts(pair.home)) == 2 and facts(pair.home))
    assert settled[-1].quantities["output"] == 1
    until(lambda: pair.slots_held() == 0)


def retried(stack: Stack, outcome: str) -> float:
    return stack.labelled(f'tessera_gateway_retries_total{{outcome="{outcome}"}}')
