"""The same request again: answered from what is kept, refused, or run; and charged once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from kernel.errors import DomainError
from kernel.keys import key_new
from serving.admission.link import RedisLink
from serving.gateway.answerbook import AnswerBook, BookDown, Claim, Record, State
from serving.gateway.idempotency import (
    First,
    parsed_key,
    refusal,
    refusal_without_record,
)
from serving.gateway.tests import raw
from serving.gateway.tests.journals import facts
from serving.gateway.tests.stack import Stack, Tenant, until

PATH = "/v1/completions"
RUNNING = Record(state=State.RUNNING, body_hash=b"body", event_id="E1")


def asked(tenant: Tenant, key: str | None, path: str = PATH, **fields: Any) -> bytes:
    body: dict[str, Any] = {"model": "support", "max_tokens": 4, "ignore_eos": True, **fields}
    if path == PATH:
        body.setdefault("prompt", "hi")
    else:
        body.setdefault("messages", [{"role": "user", "content": "hi"}])
    headers = {} if key is None else {"idempotency-key": key}
    return raw.request(path, body, key=tenant.key, headers=headers)


# Deciding


@pytest.mark.parametrize(
    ("value", "is_key"),
    [
        (b"a", True),
        (b"~!8e03978e-40d5-43e8-bc93-6894a57f9324", True),
        (b"x" * 255, True),
        (b"", False),
        (b"x" * 256, False),
        (b"two words", False),
        (b"caf\xc3\xa9", False),
        (b"line\n", False),
    ],
)
def test_a_key_is_up_to_255_visible_ascii_characters(value: bytes, *, is_key: bool) -> None:
    if is_key:
        assert parsed_key(value) == value
        return
    with pytest.raises(DomainError) as refused:
        parsed_key(value)
    assert (refused.value.code, refused.value.status) == ("invalid_idempotency_key", 400)


@pytest.mark.parametrize(
    ("record", "body", "code"),
    [
        (RUNNING, b"body", "idempotency_key_in_use"),
        (RUNNING, b"other", "idempotency_key_reused"),
        (Record(state=State.TOO_LARGE, body_hash=b"body", event_id="E1"), b"body", "idempotency_answer_too_large"),
        (Record(state=State.CUT, body_hash=b"body", event_id="E1"), b"body", "idempotency_answer_incomplete"),
        (Record(state=State.WHOLE, body_hash=b"body", event_id="E1"), b"other", "idempotency_key_reused"),
        (Record(state=State.WHOLE, body_hash=b"body", event_id="E1"), b"body", None),
    ],
)  # fmt: skip
def test_what_a_record_says(record: Record, body: bytes, code: str | None) -> None:
    found = refusal(record, body)
    assert (found and found.code) == code
    if found is not None:
        assert found.status == 409
        assert found.retryable is (code == "idempotency_key_in_use")


@pytest.mark.parametrize(
    ("is_same_body", "age", "is_book_open", "code", "status"),
    [
        (True, 31.0, True, "idempotency_outcome_unknown", 409),
        (True, 29.0, True, "idempotency_key_in_use", 409),
        (True, 31.0, False, "idempotency_unavailable", 503),
        (False, 31.0, True, "idempotency_key_reused", 409),
        (False, 31.0, False, "idempotency_key_reused", 409),
    ],
)
def test_what_a_key_says_of_which_redis_knows_nothing(
    *, is_same_body: bool, age: float, is_book_open: bool, code: str, status: int
) -> None:
    first = First(event_id="E1", is_same_body=is_same_body, age_seconds=age)
    found = refusal_without_record(first, is_book_open=is_book_open)
    assert (found.code, found.status) == (code, status)
    if code == "idempotency_outcome_unknown":
        assert "req_E1" in found.message


# Served: one gateway process, real PostgreSQL and Redis


@pytest.fixture
def asking(shared: Stack) -> Callable[..., raw.Answer]:
    return lambda *a, **k: raw.ask(shared.port, asked(shared.tenants[0], *a, **k))


@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_same_again_is_the_same_answer_and_charged_once(
    shared: Stack, asking: Callable[..., raw.Answer], *, path: str, stream: bool
) -> None:
    before = len(facts(shared.home))
    key = f"same-{path}-{stream}"
    first, second, third = (asking(key, path, stream=stream) for _ in range(3))
    assert first.status == second.status == 200
    assert first.body == second.body == third.body
    assert first.headers["content-type"] == second.headers["content-type"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["x-original-request-id"] == first.headers["x-request-id"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(facts(shared.home)) == before + 1


def test_another_body_or_path_is_another_request(asking: Callable[..., raw.Answer]) -> None:
    assert asking("one").status == 200
    for other in (asking("one", prompt="bye"), asking("one", "/v1/chat/completions")):
        assert (other.status, other.code) == (409, "idempotency_key_reused")
        assert other.headers["x-should-retry"] == "false"


def test_a_key_is_its_projects(shared: Stack) -> None:
    for tenant in shared.tenants:
        answer = raw.ask(shared.port, asked(tenant, "everybodys", model=tenant.models[0]))
        assert (answer.status, answer.headers.get("idempotent-replayed")) == (200, None)


def test_what_is_no_key_is_refused(asking: Callable[..., raw.Answer]) -> None:
    answer = asking("x" * 256)
    assert (answer.status, answer.code) == (400, "invalid_idempotency_key")


def test_two_keys_are_none(shared: Stack) -> None:
    request = asked(shared.tenants[0], "one").replace(
        b"idempotency-key: one\r\n", b"idempotency-key: one\r\nidempotency-key: two\r\n"
    )
    assert raw.ask(shared.port, request).status == 400


def test_while_the_first_runs_the_second_is_told_to_wait(shared: Stack) -> None:
    tenant = shared.tenants[0]
    shared.engines[0].order(kind="slow", token_ms=100, model=tenant.adapter("support"), times=1)
    request = asked(tenant, "running", stream=True, max_tokens=10)
    with raw.connected(shared.port) as connection:
        connection.sendall(request)
        data = connection.recv(65536)
        second = raw.ask(shared.port, request)
        other = raw.ask(shared.port, asked(tenant, "running"))
        data += raw.read_all_until(connection, b"0\r\n\r\n")
    assert (second.status, second.code) == (409, "idempotency_key_in_use")
    assert second.headers["retry-after"] == "1"
    assert second.headers["x-should-retry"] == "true"
    assert other.code == "idempotency_key_reused"
    assert b"[DONE]" in data
    assert raw.ask(shared.port, request).headers["idempotent-replayed"] == "true"


def test_what_is_not_owed_may_be_tried_again_with_the_same_key(shared: Stack) -> None:
    tenant = shared.tenants[0]
    shared.engines[0].order(kind="status", status=503, model=tenant.adapter("support"), times=3)
    first = raw.ask(shared.port, asked(tenant, "failed"))
    assert first.status == 503
    shared.engines[0].order(kind="status", status=503, model="nobody", times=1)
    second = until(
        lambda: (a := raw.ask(shared.port, asked(tenant, "failed"))).status == 200 and a,
        what="the engine's recovery",
    )
    assert "idempotent-replayed" not in second.headers


def test_an_answer_left_in_the_middle_is_charged_and_not_made_again(shared: Stack) -> None:
    tenant = shared.tenants[0]
    before = len(facts(shared.home))
    shared.engines[0].order(kind="slow", token_ms=50, model=tenant.adapter("support"), times=1)
    request = asked(tenant, "left", stream=True, max_tokens=100)
    with raw.connected(shared.port) as connection:
        connection.sendall(request)
        connection.recv(65536)
    until(lambda: len(facts(shared.home)) == before + 1, what="the settle")
    again = until(
        lambda: (a := raw.ask(shared.port, request)).code != "idempotency_key_in_use" and a
    )
    assert (again.status, again.code) == (409, "idempotency_answer_incomplete")
    assert len(facts(shared.home)) == before + 1


def test_a_model_that_another_key_of_the_project_called_stays_absent(shared: Stack) -> None:
    tenant = shared.tenants[0]
    assert raw.ask(shared.port, asked(tenant, "narrow")).status == 200
    narrow = Tenant(**{**vars(tenant), "key": _second_key(shared, tenant)})
    answer = raw.ask(shared.port, asked(narrow, "narrow"))
    assert (answer.status, answer.code) == (404, "model_not_found")


def _second_key(made: Stack, tenant: Tenant) -> str:
    key = key_new("live")
    made.enter_key(key, tenant, key_id="key-narrow", models=["something-else"])
    return key


# What goes missing


@pytest.fixture
def alone(bare: Stack) -> Stack:
    forget(bare)
    bare.tenant("support")
    bare.engine()
    bare.serve()
    return bare


def forget(made: Stack) -> None:
    """Redis loses every answer."""
    with made.servers.client() as client:
        for name in client.scan_iter("tessera:answer:*"):
            client.delete(name)


def age(made: Stack, seconds: int) -> None:
    with psycopg.connect(made.servers.database_owner, autocommit=True) as owner:
        owner.execute(
            "UPDATE idempotency_key SET claimed_at = now() - make_interval(secs => %s)", (seconds,)
        )


def test_after_a_loss_of_redis_a_key_is_refused_rather_than_charged_again(alone: Stack) -> None:
    """F06, of answers that are kept."""
    request = asked(alone.tenants[0], "lost")
    first = raw.ask(alone.port, request)
    forget(alone)
    soon = raw.ask(alone.port, request)
    assert (soon.status, soon.code) == (409, "idempotency_key_in_use")
    age(alone, 60)
    later = raw.ask(alone.port, request)
    assert (later.status, later.code) == (409, "idempotency_outcome_unknown")
    assert first.headers["x-request-id"] in json.loads(later.body)["error"]["message"]
    assert len(facts(alone.home)) == 1
    age(alone, 24 * 3600 + 1)
    assert raw.ask(alone.port, request).status == 200
    assert len(facts(alone.home)) == 2


def test_a_gateway_killed_midway_leaves_a_key_that_is_not_charged_twice(alone: Stack) -> None:
    """F01: the claim lapses with its lease, the charge does not."""
    tenant = alone.tenants[0]
    alone.engines[0].order(kind="slow", token_ms=100, model=tenant.adapter("support"), times=1)
    request = asked(tenant, "killed", stream=True, max_tokens=100)
    with raw.connected(alone.port) as connection:
        connection.sendall(request)
        connection.recv(65536)
        alone.gateways[0].kill()
        alone.gateways[0].wait()
    new = alone.start()
    until(lambda: alone.accepts(new))
    until(lambda: raw.ask(alone.port, asked(tenant, None)).status == 200)
    running = raw.ask(alone.port, request)
    assert running.code == "idempotency_key_in_use"
    with alone.servers.client() as client:
        (name,) = client.scan_iter("tessera:answer:*")
        assert 0 < client.pttl(name) <= 30_000
    forget(alone)  # as its lease would
    age(alone, 60)
    assert raw.ask(alone.port, request).code == "idempotency_outcome_unknown"
    with psycopg.connect(alone.servers.database_owner, autocommit=True) as owner:
        # What the shipper says of a call that no engine was asked for.
        owner.execute("INSERT INTO usage_event SELECT event_id, false FROM idempotency_key")
    assert raw.ask(alone.port, request).status == 200


def test_a_kept_answer_that_was_tampered_with_is_not_repeated(alone: Stack) -> None:
    request = asked(alone.tenants[0], "forged")
    assert raw.ask(alone.port, request).status == 200
    with alone.servers.client() as client:
        (name,) = client.scan_iter("tessera:answer:*")
        kept = client.get(name)
        assert b"choices" not in kept, "it is sealed"
        client.set(name, kept[:-1] + bytes([kept[-1] ^ 1]))
    answer = raw.ask(alone.port, request)
    assert (answer.status, answer.code) == (409, "idempotency_outcome_unknown")


def test_an_answer_too_large_to_keep_says_so(alone: Stack) -> None:
    tenant = alone.tenants[0]
    request = asked(tenant, "large", n=16, prompt=["hi"] * 16, max_tokens=1200)
    first = raw.ask(alone.port, request)
    assert first.status == 200
    assert len(first.body) > 1024 * 1024
    again = raw.ask(alone.port, request)
    assert (again.status, again.code) == (409, "idempotency_answer_too_large")


async def test_the_lease_of_what_runs_is_pushed_ahead_and_written_anew(alone: Stack) -> None:
    """Redis flushed under a running call: the next renewal says again that it runs."""
    link = RedisLink(alone.servers.redis_url, timeout_seconds=1)
    running = asyncio.create_task(link.run())
    await link.wait_up()
    book = AnswerBook(link, secret=b"s" * 32)
    claim = Claim(key_hash=b"k" * 32, body_hash=b"b", event_id="E", organization="o", project="p")
    assert await book.claim(claim) is None
    assert await book.claim(claim) == claim.running
    await book.drop(claim)
    await book.renew(claim)
    other = Claim(key_hash=b"k" * 32, body_hash=b"b", event_id="F", organization="o", project="p")
    assert await book.claim(other) == claim.running
    await book.drop(other)
    assert await book.claim(other) == claim.running, "only its own claim is dropped"
    await book.keep(claim, b"application/json", b"{}")
    record = await book.claim(other)
    assert record is not None
    assert book.opened(other, record) == b"{}"
    for stranger in (
        Claim(key_hash=b"l" * 32, body_hash=b"b", event_id="E", organization="o", project="p"),
        Claim(key_hash=b"k" * 32, body_hash=b"b", event_id="E", organization="q", project="p"),
    ):
        with pytest.raises(BookDown):
            book.opened(stranger, record)
    await book.drop(claim)
    running.cancel()


def test_postgresql_away_only_requests_with_a_key_are_told_to_come_back(alone: Stack) -> None:
    """F10 is the servers' own death (test_outages); here the functions are gone."""
    tenant = alone.tenants[0]
    kept = asked(tenant, "kept")
    assert raw.ask(alone.port, kept).status == 200
    with psycopg.connect(alone.servers.database_owner, autocommit=True) as owner:
        owner.execute(
            "ALTER FUNCTION tessera_idempotency_claim(bytea, bytea, text, uuid, uuid) RENAME TO was"
        )
    started = time.monotonic()
    answer = raw.ask(alone.port, asked(tenant, "fresh"))
    with psycopg.connect(alone.servers.database_owner, autocommit=True) as owner:
        owner.execute(
            "ALTER FUNCTION was(bytea, bytea, text, uuid, uuid) RENAME TO tessera_idempotency_claim"
        )
    assert (answer.status, answer.code) == (503, "idempotency_unavailable")
    assert time.monotonic() - started < 3
    assert raw.ask(alone.port, asked(tenant, None)).status == 200
    assert raw.ask(alone.port, kept).headers["idempotent-replayed"] == "true"
    assert raw.ask(alone.port, asked(tenant, "fresh")).status == 200
