"""One rule for every route when the client leaves: the engine stops within a second, and what is
owed follows from how far the answer was, not from the route.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from kernel.usage import UsageFact
from serving.gateway.fields import parse_chat, parse_completion
from serving.gateway.tests import raw
from serving.gateway.tests.journals import facts
from serving.gateway.tests.stack import Stack, Tenant, until
from serving.gateway.tests.test_exchange import Admission, Journal, exchange, infer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ROUTES = [(path, stream) for path in (CHAT, COMPLETIONS) for stream in (False, True)]
NAMES = [f"{path.rpartition('/v1/')[2]}-{'streamed' if s else 'plain'}" for path, s in ROUTES]
every_route = pytest.mark.parametrize(("path", "stream"), ROUTES, ids=NAMES)


def body_of(path: str, *, model: str, stream: bool, tokens: int = 400) -> dict[str, Any]:
    said = (
        {"messages": [{"role": "user", "content": "Tell me."}]}
        if path == CHAT
        else {"prompt": "Tell me."}
    )
    return {"model": model, "max_tokens": tokens, "ignore_eos": True, "stream": stream, **said}


def asked(tenant: Tenant, path: str, *, stream: bool) -> bytes:
    return raw.request(path, body_of(path, model="support", stream=stream), key=tenant.key)


@pytest.fixture(scope="module")
def slow(shared: Stack) -> Stack:
    """Every answer takes twenty seconds, its first token one."""
    shared.engines[0].order(
        kind="slow", token_ms=50, model=shared.tenants[0].adapter("support"), times=0
    )
    return shared


@every_route
async def test_before_an_engine_is_asked_nothing_is_owed(path: str, *, stream: bool) -> None:
    journal, admission = Journal(), Admission()
    made = exchange(journal, admission)

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    made.upstream.connect = never  # type: ignore[method-assign, assignment]
    parse = parse_chat if path == CHAT else parse_completion
    wanted = parse(json.dumps(body_of(path, model="model", stream=stream)).encode())
    calling = asyncio.create_task(infer(made, wanted))
    async with asyncio.timeout(5):
        while not admission.held:  # noqa: ASYNC110 - polled from outside
            await asyncio.sleep(0.001)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    [fact] = journal.facts
    assert (fact.finish_reason, fact.billable) == ("client_gone", False)
    assert sum(fact.quantities.values()) == 0
    assert admission.held == []


@every_route
def test_before_the_first_token_the_prompts_estimate_is_owed(
    bare: Stack, path: str, *, stream: bool
) -> None:
    tenant = bare.tenant("support")
    bare.engine("--first-token-ms", "20000")
    bare.serve()
    fact = _left(bare, tenant, path, stream=stream, after_events=0)
    assert (fact.completeness, fact.billable) == ("unknown", True)
    assert fact.quantities["input"] > 0
    assert fact.quantities["output"] == 0


@every_route
def test_in_the_middle_what_was_counted_is_owed(slow: Stack, path: str, *, stream: bool) -> None:
    """A plain answer has no middle that anybody counts: the estimate again."""
    fact = _left(slow, slow.tenants[0], path, stream=stream, after_events=6)
    assert fact.billable
    if stream:
        assert fact.completeness == "aborted"
        assert 4 <= fact.quantities["output"] <= slow.engines[0].lines("end")[-1]["tokens"]
    else:
        assert (fact.completeness, fact.quantities["output"]) == ("unknown", 0)


def _left(made: Stack, tenant: Tenant, path: str, *, stream: bool, after_events: int) -> UsageFact:
    """Ask, leave, and see the engine stop within a second and the call settled once."""
    engine = made.engines[0]
    before, ended = len(facts(made.home)), len(engine.lines("end"))
    begun = len(engine.lines("begin"))
    with raw.connected(made.port) as connection:
        connection.sendall(asked(tenant, path, stream=stream))
        until(lambda: len(engine.lines("begin")) > begun, what="the engine being asked")
        data = b""
        while stream and data.count(b"data: ") < after_events:
            data += connection.recv(65536)
        if not stream:
            time.sleep(0.05 * after_events)
    left_at = time.monotonic()
    until(lambda: len(engine.lines("end")) > ended, seconds=5, what="the abort")
    assert time.monotonic() - left_at <= 1.0
    assert engine.lines("end")[-1]["ended"] == "aborted"
    until(lambda: len(facts(made.home)) > before, what="the settle")
    assert len(facts(made.home)) == before + 1
    fact = facts(made.home)[-1]
    assert fact.finish_reason == "client_gone"
    until(lambda: made.slots_held() == 0, what="the slot's return")
    return fact
