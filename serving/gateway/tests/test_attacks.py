"""What comes from outside with bad intent, over raw sockets; the engine's journal is the witness."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kernel.keys import key_new
from serving.gateway.tests import raw
from serving.gateway.tests.stack import Stack, until

CHAT = "/v1/chat/completions"
HELLO = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RSS")


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
    begun = shared.engines[0].lines("begin")
    body = json.dumps(HELLO).encode()
    data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert raw.ask(shared.port, data).status in {400, 401}
    assert shared.engines[0].lines("begin") == begun


def test_every_bad_key_gets_the_same_answer_and_costs_at_most_one_read(served: Stack) -> None:
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
        headers = {k: v for k, v in answer.headers.items() if k not in {"x-request-id", "date"}}
        seen.add((answer.body, json.dumps(headers, sort_keys=True)))
    assert len(seen) == 1
    reads = until(lambda: served.counter("tessera_gateway_principal_reads_total"))
    assert reads <= 3
    logs = (served.home / "gateway-0.log").read_text()
    assert "Traceback" not in logs


def test_a_nul_in_a_header_is_refused(shared: Stack) -> None:
    data = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a\0b\r\n\r\n"
    assert raw.ask(shared.port, data).status == 400


def test_a_megabyte_of_key_is_refused_and_not_kept(shared: Stack) -> None:
    data = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + b"a" * 1_000_000
    with raw.connected(shared.port) as connection:
        connection.sendall(data)
        assert raw.read_answer(connection).status == 431


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_foreign_and_unknown_models_are_the_same(shared: Stack, path: str) -> None:
    begun = shared.engines[0].lines("begin")
    ours, theirs = shared.tenants
    names = [
        "legal",
        "LEGAL",
        "Support",
        theirs.adapter("legal"),
        ours.adapter("support"),
        "base",
        "nothing",
    ]

    def body(name: str) -> dict[str, object]:
        prompt = {"messages": HELLO["messages"]} if path == CHAT else {"prompt": "hi"}
        return {"model": name, **prompt}

    answers = [(n, raw.ask(shared.port, raw.request(path, body(n), key=ours.key))) for n in names]
    assert {answer.status for _, answer in answers} == {404}
    assert {answer.body.replace(n.encode(), b"NAME") for n, answer in answers} == {
        raw.ask(shared.port, raw.request(path, body("NAME"), key=ours.key)).body
    }
    assert answers[0][1].code == "model_not_found"
    assert shared.engines[0].lines("begin") == begun


@pytest.mark.parametrize(
    "field",
    ["api_base", "base_url", "lora_request", "kv_transfer_params", "priority", "request_id",
     "vllm_xargs", "chat_template", "chat_template_kwargs", "prompt_embeds", "mm_processor_kwargs"],
)  # fmt: skip
def test_fields_that_steer_an_engine_are_refused_by_name(shared: Stack, field: str) -> None:
    begun = shared.engines[0].lines("begin")
    data = raw.request(CHAT, {**HELLO, field: "x"}, key=shared.tenants[0].key)
    answer = raw.ask(shared.port, data)
    assert answer.status == 400
    assert answer.json["error"]["param"] == field
    assert field in answer.json["error"]["message"]
    assert shared.engines[0].lines("begin") == begun


@pytest.mark.parametrize(
    "change",
    [
        {"n": 10**9}, {"best_of": 10**6}, {"max_tokens": 2**63}, {"top_logprobs": 10**6},
        {"stop": ["x" * 3] * 10**5}, {"logit_bias": {str(n): 1 for n in range(10**5)}},
        {"temperature": -1}, {"temperature": True}, {"n": True}, {"max_tokens": -1}, {"max_tokens": 1.5},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_absurd_values_are_refused_fast_and_leave_no_memory_behind(
    shared: Stack, change: dict[str, object]
) -> None:
    data = raw.request(CHAT, {**HELLO, **change}, key=shared.tenants[0].key)
    raw.ask(shared.port, raw.request(CHAT, HELLO, key=shared.tenants[0].key))
    begun = len(shared.engines[0].lines("begin"))
    pid = shared.gateways[0].pid
    before = rss_bytes(pid)
    started = time.monotonic()
    answer = raw.ask(shared.port, data)
    assert time.monotonic() - started < 0.5
    assert answer.status == 400
    assert answer.json["error"]["param"] == next(iter(change))
    assert rss_bytes(pid) - before < 5_000_000
    assert len(shared.engines[0].lines("begin")) == begun


def test_nan_is_not_json(shared: Stack) -> None:
    body = json.dumps({**HELLO, "temperature": float("nan")}).encode()
    answer = raw.ask(shared.port, raw.request(CHAT, body, key=shared.tenants[0].key))
    assert answer.status == 400


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(shared: Stack) -> None:
    head = raw.request(
        CHAT, b"", key=shared.tenants[0].key, headers={"content-length": "200000000"}
    )
    with raw.connected(shared.port) as connection:
        connection.sendall(head)
        assert raw.read_answer(connection).status == 413


def test_chunks_that_never_end_are_cut_at_the_limit(shared: Stack) -> None:
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
    answer = raw.ask(shared.port, raw.request(CHAT, text, key=shared.tenants[0].key))
    assert answer.status == 400
    deep = b'{"model":"support","metadata":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    answer = raw.ask(shared.port, raw.request(CHAT, deep, key=shared.tenants[0].key))
    assert answer.status == 400


def test_compressed_bodies_are_refused(shared: Stack) -> None:
    data = raw.request(
        CHAT, b"\x1f\x8b", key=shared.tenants[0].key, headers={"content-encoding": "gzip"}
    )
    assert raw.ask(shared.port, data).status == 415


def test_a_slow_request_ends_while_others_are_served(bare: Stack) -> None:
    bare.tenant("support")
    bare.engine()
    bare.serve(TESSERA_GATEWAY_HEAD_SECONDS="1")
    with raw.connected(bare.port, seconds=15) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        started = time.monotonic()
        answer = raw.ask(bare.port, raw.request(CHAT, HELLO, key=bare.tenants[0].key))
        assert answer.status == 200
        assert raw.read_answer(slow).status == 408
        assert time.monotonic() - started < 10


def test_client_headers_are_never_believed(served: Stack) -> None:
    key, path = served.tenants[0].key, CHAT
    for headers in (
        {"x-forwarded-for": "9.9.9.9", "x-org-id": served.tenants[1].organization},
        {"x-user": "root", "x-request-id": "req_mine"},
        {"x-request-id": "a" * 10_000},
    ):
        answer = raw.ask(served.port, raw.request(path, HELLO, key=key, headers=headers))
        assert answer.status == 200
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-request-id"] != "req_mine"
    lines = until(lambda: (found := served.access_lines()) and len(found) >= 3 and found)
    assert [line["peer"] for line in lines] == ["127.0.0.1"] * 3
    assert {line["organization"] for line in lines} == {served.tenants[0].organization}


def test_a_line_break_in_a_header_makes_no_second_log_line(served: Stack) -> None:
    data = raw.request("/v1/x\t", b"", key="k", headers={"x-request-id": "a\r\n b"})
    assert raw.ask(served.port, data).status == 400
    raw.ask(served.port, raw.request('/v1/"}{"', b"", method="GET"))
    lines = until(lambda: (found := served.access_lines()) and len(found) >= 2 and found)
    assert len(lines) == 2


def test_tenants_salts_differ_and_a_clients_own_is_mixed_in(served: Stack) -> None:
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


def test_500_idle_connections_leave_room_for_a_request(shared: Stack) -> None:
    with ThreadPoolExecutor(1):
        idle = [raw.connected(shared.port) for _ in range(500)]
        opened = [context.__enter__() for context in idle]
        answer = raw.ask(shared.port, raw.request(CHAT, HELLO, key=shared.tenants[0].key))
        for connection in opened:
            connection.close()
    assert answer.status == 200
