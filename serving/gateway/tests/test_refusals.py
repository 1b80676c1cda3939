from __future__ import annotations

import json

import pytest

from serving.gateway.errors import error_body, error_headers
from serving.gateway.refusals import REASONS, refusal

THEIRS = {
    "requests_per_minute": "rate_limit_error",
    "tokens_per_minute": "rate_limit_error",
    "concurrency": "rate_limit_error",
    "insufficient_balance": "insufficient_quota",
    "budget_exceeded": "insufficient_quota",
}
OURS = {
    "pool_full", "queue_full", "queue_timeout", "balance_unavailable", "no_price", "model_not_ready"
}  # fmt: skip
IN_VAIN = {"insufficient_balance", "budget_exceeded", "no_price"}


def test_every_reason_is_either_theirs_or_ours() -> None:
    assert set(THEIRS) | OURS == REASONS


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_reason_has_its_status_type_code_and_advice(reason: str) -> None:
    error = refusal(reason, model="support", scope="project")
    body = json.loads(error_body(error))["error"]
    assert error.status == (429 if reason in THEIRS else 503)
    assert body["type"] == THEIRS.get(reason, "server_error")
    assert body["code"] == reason
    assert "{" not in body["message"]
    assert (b"x-should-retry: true" in error_headers(error)) == (reason not in IN_VAIN)


@pytest.mark.parametrize("reason", sorted(THEIRS))
@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("organization", "your organization"),
        ("project", "this project"),
        ("key", "this API key"),
        ("", "your account"),
    ],
)
def test_a_limit_says_whose_it_is(reason: str, scope: str, words: str) -> None:
    assert words in refusal(reason, model="support", scope=scope).message


def test_admissions_delay_wins_and_a_name_is_only_text() -> None:
    error = refusal("queue_full", model="{scope}", retry_after_seconds=7.2)
    assert b"retry-after: 8\r\n" in error_headers(error)
    assert "'{scope}'" in error.message
