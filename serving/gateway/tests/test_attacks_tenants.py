"""A12 and A14: tenants share nothing but engines; who leaves pays for what was made, once."""

from __future__ import annotations

import time

from serving.gateway.tests import raw
from serving.gateway.tests.attacks import CHAT, HELLO
from serving.gateway.tests.journals import facts
from serving.gateway.tests.stack import Stack, until
from serving.gateway.tests.test_streams import streamed


def test_tenants_salts_differ_and_a_clients_own_is_mixed_in(served: Stack) -> None:
    """A12"""
    ours, theirs = served.tenants
    prompt = "the same long prompt " * 40

    def send(key: str, model: str, **fields: object) -> int:
        body = {"model": model, "prompt": prompt, "max_tokens": 1, **fields}
        answer = raw.ask(served.port, raw.request("/v1/completions", body, key=key))
        assert answer.status == 200, answer.body
        details = answer.json["usage"]["prompt_tokens_details"]
        return int((details or {}).get("cached_tokens") or 0)

    cached = [
        send(ours.key, "support"),
        send(ours.key, "support"),
        send(theirs.key, "legal"),
        send(ours.key, "support", cache_salt="mine"),
        send(ours.key, "support", cache_salt="mine"),
    ]
    salts = [line["salt"] for line in served.engines[0].lines("begin")]
    assert salts[0] == salts[1]
    assert len({salts[0], salts[2], salts[3]}) == 3
    assert all(len(salt) == 64 and "mine" not in salt for salt in salts)
    assert cached[0] == cached[2] == cached[3] == 0
    assert cached[1] > 0
    assert cached[4] > 0


def test_secrets_and_prompts_are_in_no_log(served: Stack) -> None:
    tenant = served.tenants[0]
    secret = {**HELLO, "messages": [{"role": "user", "content": "zebra crossing"}]}
    raw.ask(served.port, raw.request(CHAT, secret, key=tenant.key))
    raw.ask(served.port, raw.request(CHAT, {**secret, "n": "zebra"}, key=tenant.key))
    raw.ask(served.port, raw.request(CHAT, b'{"zebra', key=tenant.key))
    until(lambda: len(served.access_lines()) >= 3)
    written = "".join(p.read_text() for p in served.home.glob("*.log"))
    written += (served.home / "access-0.jsonl").read_text()
    assert "zebra" not in written
    assert tenant.key not in written
    assert tenant.key.split("_")[2] not in written


def test_who_leaves_a_stream_stops_its_engine_and_is_metered_once(bare: Stack) -> None:
    """A14: the engine hears within a second; what it made by then is settled, once."""
    tenant = bare.tenant("support")
    engine = bare.engine("--token-ms", "20")
    bare.serve()
    for number in range(3):
        with raw.connected(bare.port) as connection:
            connection.sendall(streamed(tenant, 1000))
            raw.read_all_until(connection, b'"content":')
        left = time.monotonic()
        until(lambda: len(engine.lines("end")) > number, seconds=5, what="the abort")  # noqa: B023
        assert time.monotonic() - left <= 1.0
    settled = until(lambda: len(facts(bare.home)) == 3 and facts(bare.home))
    made = {line["request"]: line["tokens"] for line in engine.lines("end")}
    assert len({fact.event_id for fact in settled}) == len(made) == 3
    for fact, tokens in zip(settled, made.values(), strict=True):
        assert (fact.completeness, fact.finish_reason) == ("aborted", "client_gone")
        assert tokens - 3 <= fact.quantities["output"] <= tokens


def test_a_grammar_that_an_engine_chokes_on_costs_nobody_else_a_replica(bare: Stack) -> None:
    """A08: 500 to one customer's schema tells nothing about the replicas that others share."""
    ours, theirs = bare.tenant("support"), bare.tenant("legal")
    for engine in (bare.engine(), bare.engine()):
        engine.order(kind="status", status=500, times=0, model=ours.adapter("support"))
    bare.serve()
    poison = {**HELLO, "response_format": {"type": "json_object"}}
    for _ in range(10):
        answer = raw.ask(bare.port, raw.request(CHAT, poison, key=ours.key))
        assert (answer.status, answer.code) == (502, "engine_failed")
    fine = {**HELLO, "model": "legal"}
    assert raw.ask(bare.port, raw.request(CHAT, fine, key=theirs.key)).status == 200
    assert "ejected" not in (bare.home / "gateway-0.log").read_text()
