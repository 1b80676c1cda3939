from __future__ import annotations

import json

import pytest

from serving.admission.values import Allowance, Reason, Refusal
from serving.gateway.errors import error_body, error_headers
from serving.gateway.refusals import ANSWERS, NO_PRICE, NOT_READY, refusal, refused

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


def test_every_reason_has_an_answer_and_is_either_theirs_or_ours() -> None:
    assert set(ANSWERS) == {*Reason, NO_PRICE, NOT_READY}
    assert set(THEIRS) | OURS == set(ANSWERS)


@pytest.mark.parametrize("reason", sorted(ANSWERS))
def test_a_reason_has_its_status_type_code_and_advice(reason: str) -> None:
    error = refusal(reason, model="support", subject="project:1")
    body = json.loads(error_body(error))["error"]
    assert error.status == (429 if reason in THEIRS else 503)
    assert body["type"] == THEIRS.get(reason, "server_error")
    assert body["code"] == reason
    assert "{" not in body["message"]
    assert (b"x-should-retry: true" in error_headers(error)) == (reason not in IN_VAIN)


@pytest.mark.parametrize("reason", sorted(THEIRS))
@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("org:1", "your organization"),
        ("project:1", "this project"),
        ("key:1", "this API key"),
        ("", "your account"),
    ],
)
def test_a_limit_says_whose_it_is(reason: str, subject: str, words: str) -> None:
    assert words in refusal(reason, model="support", subject=subject).message


def test_admissions_delay_wins_and_a_name_is_only_text() -> None:
    error = refusal("queue_full", model="{scope}", delay_seconds=7.2)
    assert b"retry-after: 8\r\n" in error_headers(error)
    assert "'{scope}'" in error.message


def test_admissions_refusal_carries_what_is_left() -> None:
    by = Refusal(
        reason=Reason.REQUESTS_PER_MINUTE,
        retry_after_seconds=0.5,
        subject="key:1",
        allowance=Allowance(limit_requests=2, remaining_requests=0, reset_requests_seconds=1.0),
    )
    lines = error_headers(refused(by, model="support")).decode().splitlines()
    assert lines == [
        "retry-after: 1",
        "retry-after-ms: 500",
        "x-should-retry: true",
        "x-ratelimit-limit-requests: 2",
        "x-ratelimit-remaining-requests: 0",
        "x-ratelimit-reset-requests: 1s",
    ]
