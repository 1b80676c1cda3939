"""A01-A04: forged authorities, keys that are none, revoked keys, other tenants' models.

Over raw sockets; the engine's own journal is the witness.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from kernel.keys import key_new
from serving.gateway.api import PARSERS
from serving.gateway.tests import raw
from serving.gateway.tests.attacks import CHAT, HELLO, LEAST, told_apart
from serving.gateway.tests.stack import Stack, until
from serving.gateway.tests.test_streams import events, streamed

ROUTES = [path.decode() for path in PARSERS]


def test_every_inference_route_is_attacked() -> None:
    assert set(LEAST) == set(ROUTES)


def models(key: str, name: str = "") -> bytes:
    return raw.request(f"/v1/models{'/' + name if name else ''}", key=key, method="GET")


def infer(path: str, model: str, key: str) -> bytes:
    return raw.request(path, {"model": model, **LEAST[path]}, key=key)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x/health?a=\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a#\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        b"POST http://a/v1/chat/completions HTTP/1.1\r\nHost: a\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n",
    ],
)
def test_a_forged_authority_never_reaches_an_engine(shared: Stack, head: bytes) -> None:
    """A01: nothing but the request's own path decides, and nothing gets by without a key."""
    begun = shared.engines[0].lines("begin")
    body = json.dumps(HELLO).encode()
    data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert raw.ask(shared.port, data).status in {400, 401}
    assert shared.engines[0].lines("begin") == begun


def test_every_bad_key_gets_the_same_answer_and_costs_at_most_one_read(served: Stack) -> None:
    """A02: one answer for every bad key, at most one read of PostgreSQL for each that could be one."""
    unknown = key_new("live")
    revoked, expired = served.tenant("support"), served.tenant("support")
    served.change_key(revoked.key_id, "active = false")
    served.change_key(expired.key_id, "expires_at = 1")
    wellformed = served.tenants[0].key
    typo = wellformed[:-1] + ("0" if wellformed[-1] != "0" else "1")
    authorizations = [
        None, "", "Bearer", "Bearer ", "Bearer ' OR '1'='1", "Basic abc", "Bearer \xe9\xff",
        f"Bearer {typo}", f"Bearer {unknown}", f"Bearer {revoked.key}", f"Bearer {expired.key}",
        "Bearer " + "a" * 20_000, wellformed,
    ]  # fmt: skip
    seen = set()
    for text in authorizations:
        head = b"" if text is None else b"authorization: " + text.encode("latin-1") + b"\r\n"
        data = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n"
        answer = raw.ask(served.port, data)
        assert answer.status == 401, text
        seen.add(told_apart(answer))
    assert len(seen) == 1
    reads = until(lambda: served.counter("tessera_gateway_principal_reads_total"))
    assert reads <= 3
    logs = (served.home / "gateway-0.log").read_text()
    assert "Traceback" not in logs


def test_a_nul_in_a_header_is_refused(shared: Stack) -> None:
    """A02"""
    data = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a\0b\r\n\r\n"
    assert raw.ask(shared.port, data).status == 400


def test_a_megabyte_of_key_is_refused_and_not_kept(shared: Stack) -> None:
    """A02"""
    data = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + b"a" * 1_000_000
    with raw.connected(shared.port) as connection:
        connection.sendall(data)
        assert raw.read_answer(connection).status == 431


def test_guessing_is_slowed_down_while_a_key_in_use_is_served(served: Stack) -> None:
    """A02: a flood of invented keys costs as many reads as the limit says, and nobody else."""
    tenant = served.tenants[0]
    assert raw.ask(served.port, models(tenant.key)).status == 200
    with raw.connected(served.port) as connection:
        answers = []
        for _ in range(150):
            connection.sendall(models(key_new("live")))
            answers.append(raw.read_answer(connection))
        connection.sendall(models(tenant.key))
        assert raw.read_answer(connection).status == 200
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.status for answer in answers[:60]} == {401}
    assert len(refused) > 60
    assert {answer.code for answer in refused} == {"too_many_failed_keys"}
    assert all(int(answer.headers["retry-after-ms"]) > 0 for answer in refused)
    assert {answer.headers["x-should-retry"] for answer in refused} == {"true"}
    until(lambda: served.counter("tessera_gateway_failed_keys_refused_total") == len(refused))
    assert served.counter("tessera_gateway_principal_reads_total") <= 150 - len(refused) + 2


def test_a_revoked_key_ends_under_load(bare: Stack) -> None:
    """A03: 20 workers hammer; nothing begins later than 5 s after, open streams end within 10 s."""
    tenant = bare.tenant("support")
    bare.engine("--token-ms", "50")
    bare.serve(processes=2)
    last_good: list[float] = []
    stop = Event()

    def hammer(_: int) -> None:
        with raw.connected(bare.port) as connection:
            while not stop.is_set():
                started = time.monotonic()
                connection.sendall(models(tenant.key))
                if raw.read_answer(connection).status == 200:
                    last_good.append(started)

    def stream(_: int) -> float:
        with raw.connected(bare.port, seconds=30) as connection:
            connection.sendall(streamed(tenant, 2000))
            answer = raw.read_answer(connection)
            assert events(answer.body)[-1]["error"]["code"] == "invalid_api_key"
            return time.monotonic()

    with ThreadPoolExecutor(24) as pool:
        ends = [pool.submit(stream, number) for number in range(4)]
        workers = [pool.submit(hammer, number) for number in range(20)]
        until(lambda: len(last_good) > 100, what="a hammered key")
        until(lambda: len(bare.engines[0].lines("begin")) == 4, what="streams under way")
        bare.change_key(tenant.key_id, "active = false")
        bare.push_revocation(tenant.key_id)
        revoked = time.monotonic()
        assert max(end.result(15) for end in ends) - revoked < 10
        until(lambda: time.monotonic() - revoked > 2)
        stop.set()
        for worker in workers:
            worker.result(10)
    assert max(last_good) - revoked < 5


@pytest.mark.parametrize("path", ROUTES)
def test_foreign_and_unknown_models_are_the_same(shared: Stack, path: str) -> None:
    """A04: exact ids, other spellings, adapters' names on engines, the base: nothing is there."""
    begun = shared.engines[0].lines("begin")
    ours, theirs = shared.tenants
    names = [
        "legal", "LEGAL", "Support", "support ", "base", "nothing", "../support", theirs.organization,
        theirs.adapter("legal"), ours.adapter("support"),
    ]  # fmt: skip
    answers = [(n, raw.ask(shared.port, infer(path, n, ours.key))) for n in names]
    assert {answer.status for _, answer in answers} == {404}
    assert {answer.body.replace(n.encode(), b"NAME") for n, answer in answers} == {
        raw.ask(shared.port, infer(path, "NAME", ours.key)).body
    }
    assert answers[0][1].code == "model_not_found"
    assert shared.engines[0].lines("begin") == begun


def test_a_model_that_somebody_else_gets_changes_nothing_for_others(bare: Stack) -> None:
    """A04: byte for byte the same before and after, on every route that takes a model's name."""
    ours, theirs = bare.tenant("support"), bare.tenant("theirs")
    bare.engine(names=(theirs.adapter("legal"),))
    bare.serve()

    def seen() -> list[object]:
        asked = [infer(path, "legal", ours.key) for path in ROUTES]
        return [
            told_apart(raw.ask(bare.port, data)) for data in (*asked, models(ours.key, "legal"))
        ]

    before = seen()
    theirs.models = ("legal",)
    bare.publish()
    until(lambda: bare.gauge(0, "tessera_gateway_routes_sequence") == bare.sequence)
    assert raw.ask(bare.port, infer(CHAT, "legal", theirs.key)).status == 200
    assert seen() == before


def test_a_revoked_key_is_the_same_as_one_that_never_was(served: Stack) -> None:
    """A04: on every registered route."""
    revoked, absent = served.tenant("support"), key_new("live")
    served.change_key(revoked.key_id, "active = false")

    def seen(key: str) -> list[object]:
        asked = [infer(path, "support", key) for path in ROUTES]
        asked += [models(key), models(key, "support")]
        return [told_apart(raw.ask(served.port, data)) for data in asked]

    assert seen(revoked.key) == seen(absent)
