"""What every answer gets, whatever it says: CORS, ids, content types, one line in the log."""

from __future__ import annotations

import pytest

from serving.gateway.tests import raw
from serving.gateway.tests.stack import Stack, until

ORIGIN = {"origin": "http://portal.test"}
CHAT = "/v1/chat/completions"


def test_a_browser_of_the_portal_may_ask_and_read(shared: Stack) -> None:
    preflight = raw.ask(
        shared.port,
        raw.request(
            CHAT,
            method="OPTIONS",
            headers={
                **ORIGIN,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        ),
    )
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "http://portal.test"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = raw.ask(shared.port, raw.request(CHAT, b"{}", headers=ORIGIN))
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == "http://portal.test"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert answer.headers["vary"] == "Origin"


def test_other_origins_get_no_permission(shared: Stack) -> None:
    for origin in ("http://evil.test", "http://portal.test.evil", "null"):
        for method in ("OPTIONS", "POST"):
            answer = raw.ask(
                shared.port, raw.request(CHAT, b"{}", method=method, headers={"origin": origin})
            )
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/../metrics", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models", 401),
        ("POST", "/v1/completions?x=y", 401),
        ("POST", "/v1/load_lora_adapter", 404),
        ("GET", "/metrics", 404),
        ("POST", "/tokenize", 404),
    ],
)
def test_paths_and_methods(shared: Stack, method: str, path: str, status: int) -> None:
    answer = raw.ask(shared.port, raw.request(path, b"{}", method=method))
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert shared.engines[0].lines() == []


def test_a_body_that_is_not_said_to_be_json_is_refused(shared: Stack) -> None:
    key = shared.tenants[0].key
    data = raw.request(CHAT, b"{}", key=key, headers={"content-type": "text/plain"})
    assert raw.ask(shared.port, data).status == 415


def test_a_key_without_the_scope_may_not_infer(shared: Stack) -> None:
    tenant = shared.tenant("support", scopes=["manage"])
    answer = raw.ask(shared.port, raw.request(CHAT, b"{}", key=tenant.key))
    assert (answer.status, answer.code) == (403, "insufficient_scope")


def test_each_request_leaves_one_line_with_who_what_and_how(served: Stack) -> None:
    tenant = served.tenants[0]
    body = {"model": "support", "prompt": "x", "max_tokens": 3}
    answer = raw.ask(served.port, raw.request("/v1/completions", body, key=tenant.key))
    raw.ask(served.port, raw.request("/v1/completions", {**body, "n": 99}, key=tenant.key))
    raw.ask(served.port, b"nonsense\r\n\r\n")
    lines = until(lambda: len(served.access_lines()) == 3 and served.access_lines())
    assert lines[0]["request_id"] == answer.headers["x-request-id"]
    assert lines[0]["status"] == 200
    assert (lines[0]["key_id"], lines[0]["model"]) == (tenant.key_id, "support")
    assert (lines[0]["output"], lines[0]["replica"]) == (3, "replica-0")
    assert (lines[1]["status"], lines[1]["code"]) == (400, "invalid_request")
    assert (lines[2]["status"], lines[2]["code"]) == (400, "http_syntax")
