"""A call that meets trouble before an engine is asked: nothing taken is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from kernel.errors import Unavailable
from kernel.keys import key_mac, key_new
from kernel.usage import UsageFact
from serving.admission.values import AdmissionRequest, Grant, Reason, Refusal, Used
from serving.gateway.access import Line
from serving.gateway.answers import OpenStreams
from serving.gateway.asking import engine_body, output_limit
from serving.gateway.errors import Busy, Unauthorized
from serving.gateway.exchange import Exchange
from serving.gateway.fields import Wanted, parse_chat
from serving.gateway.head import Limits, Request
from serving.gateway.http import Door
from serving.gateway.metrics import Metrics
from serving.gateway.principals import Copy
from serving.gateway.reply import Reply
from serving.gateway.settle import OpenAccounts
from serving.gateway.tests.test_where import directory, endpoint, principal
from serving.gateway.upstream import Timeouts, Upstream
from serving.gateway.where import Fleet
from serving.gateway.who import Known, Who
from serving.journal.writer import JournalFull

BODY = b'{"model":"model","messages":[{"role":"user","content":"x"}],"max_tokens":5,"stream":true}'


class Nowhere:
    async def read(self, mac: bytes) -> Copy | None:
        return None

    async def write(self, mac: bytes, copy: Copy) -> None:
        return None


class Journal:
    def __init__(self, *, is_full: bool = False) -> None:
        self.is_full = is_full
        self.facts: list[UsageFact] = []

    def intent(self, draft: UsageFact) -> None:
        if self.is_full:
            raise JournalFull(rule="journal_bound")

    def checkpoint(self, event_id: str, quantities: Mapping[str, int]) -> None:
        raise AssertionError("nothing was counted")

    def settle(self, fact: UsageFact) -> None:
        self.facts.append(fact)


class Admission:
    def __init__(self, answer: Refusal | None = None) -> None:
        self.answer = answer
        self.held: list[Grant] = []

    async def admit(self, request: AdmissionRequest) -> Grant | Refusal:
        if self.answer is not None:
            return self.answer
        self.held.append(_grant(request))
        return self.held[-1]

    def shrink(self, grant: Grant, input_tokens: int) -> None:
        raise AssertionError("nothing was counted")

    def settle(self, grant: Grant, used: Used) -> None:
        self.held.remove(grant)


def _grant(request: AdmissionRequest) -> Grant:
    return Grant(
        grant_id=request.grant_id,
        pool=request.pool,
        at=1,
        output_tokens=request.demand.output_tokens,
    )


def exchange(journal: Journal, admission: Admission) -> Exchange:
    made = directory(endpoint("a", "a"))
    fleet = Fleet()
    fleet.update(made, 0.0)
    return Exchange(
        who=Who(cache=Nowhere(), database=Nowhere(), pepper=b"p" * 32),
        directory=lambda: made,
        admission=admission,
        journal=journal,
        fleet=fleet,
        upstream=Upstream(engine_key=b"e" * 32),
        accounts=OpenAccounts(),
        streams=OpenStreams(),
        metrics=Metrics(),
        salt_key=b"s" * 32,
        timeouts=Timeouts(first_token=1, answer=1, idle=1),
    )


async def infer(made: Exchange, wanted: Wanted | None = None, *, mac: bytes = b"") -> Line:
    async def nobody(request: Request, reply: Reply) -> None:
        return

    door = Door(nobody, limits=Limits())
    reply = Reply(door.connection(), keep_alive=True)
    line = Line(request_id="req_1", method="POST", path="/", peer="", at=0.0)
    try:
        await made.infer(Known(mac, principal(), 0.0), wanted or parse_chat(BODY), reply, line)
    finally:
        assert not reply.has_started
    return line


async def test_a_full_journal_is_a_503_and_the_slot_goes_back() -> None:
    journal, admission = Journal(is_full=True), Admission()
    with pytest.raises(Unavailable) as caught:
        await infer(exchange(journal, admission))
    assert (caught.value.code, caught.value.status) == ("journal_full", 503)
    assert admission.held == []


async def test_no_slot_is_a_503_with_the_scripts_reason_and_writes_nothing() -> None:
    journal = Journal()
    refusal = Refusal(reason=Reason.POOL_FULL, retry_after_seconds=3)
    with pytest.raises(Busy) as caught:
        await infer(exchange(journal, Admission(refusal)))
    assert (caught.value.code, caught.value.retry_after_seconds) == ("pool_full", 3)
    assert journal.facts == []


async def test_a_key_that_went_while_its_call_waited_asks_no_engine() -> None:
    journal, admission, key = Journal(), Admission(), key_new("live")
    made = exchange(journal, admission)
    with pytest.raises(Unauthorized):  # it is looked up again, and nobody knows it any more
        await made.who.identify(f"Bearer {key}".encode(), "192.0.2.1")
    with pytest.raises(Unauthorized):
        await infer(made, mac=key_mac(b"p" * 32, key))
    assert (journal.facts, admission.held) == ([], [])


async def test_an_engine_nobody_reaches_is_not_billed() -> None:
    journal, admission = Journal(), Admission()
    with pytest.raises(Busy) as caught:
        await infer(exchange(journal, admission))
    assert caught.value.code == "engine_unreachable"
    [fact] = journal.facts
    assert (fact.billable, fact.finish_reason) == (False, "engine_unreachable")
    assert admission.held == []


async def test_a_cancelled_call_is_settled_and_gives_back() -> None:
    journal, admission = Journal(), Admission()
    made = exchange(journal, admission)

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    made.upstream.connect = never  # type: ignore[method-assign, assignment]
    calling = asyncio.create_task(infer(made))
    async with asyncio.timeout(5):
        while not admission.held:  # noqa: ASYNC110 - polled from outside
            await asyncio.sleep(0.001)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    [fact] = journal.facts
    assert (fact.finish_reason, fact.billable) == ("client_gone", False)  # nothing was asked yet
    assert admission.held == []
    assert all(replica.outstanding == 0 for replica in made.fleet)


@pytest.mark.parametrize(
    ("wanted", "sent"), [(None, 10), (5, 5), (99, 99), (100, None), (10**6, None)]
)
def test_the_output_limit_is_the_clients_or_the_pools_and_never_above_the_context(
    wanted: int | None, sent: int | None
) -> None:
    assert output_limit(wanted, directory(endpoint("a", "a")).target(principal(), "model")) == sent


def test_what_goes_upstream_begins_with_what_is_ours() -> None:
    body = engine_body(parse_chat(BODY), "adapter", "salt", 5)
    assert body.startswith(b'{"model":"adapter","cache_salt":"salt","priority":0,"max_tokens":5,')
    assert b'"continuous_usage_stats":true' in body
    assert body.count(b'"model"') == body.count(b'"max_tokens"') == 1
