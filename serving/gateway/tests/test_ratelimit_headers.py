from __future__ import annotations

import pytest

from serving.admission.values import NO_LIMITS, Allowance
from serving.gateway.errors import (
    BadRequest,
    Busy,
    EngineFailed,
    GatewayError,
    InternalError,
    ModelNotFound,
    Unauthorized,
    WrongVersion,
    error_headers,
)
from serving.gateway.ratelimit_headers import (
    EXPOSED,
    allowance_headers,
    duration,
    retry_headers,
)

ALL = Allowance(
    limit_requests=60,
    remaining_requests=59,
    reset_requests_seconds=1.0,
    limit_tokens=150_000,
    remaining_tokens=149_984,
    reset_tokens_seconds=360.0,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, b"0s"), (0.0, b"0s"), (0.0001, b"1ms"), (0.012, b"12ms"), (0.9991, b"1s"),
        (1.0, b"1s"), (1.5, b"1.5s"), (8.64, b"8.64s"), (59.9995, b"1m0s"), (60.0, b"1m0s"),
        (360.0, b"6m0s"), (3600.0, b"1h0m0s"), (3723.5, b"1h2m3.5s"), (90_061.001, b"25h1m1.001s"),
    ],
)  # fmt: skip
def test_durations_have_openais_form_and_are_never_short(seconds: float, text: bytes) -> None:
    assert duration(seconds) == text


def test_each_limit_that_there_is_has_its_three_lines() -> None:
    assert allowance_headers(ALL).decode().splitlines() == [
        "x-ratelimit-limit-requests: 60",
        "x-ratelimit-remaining-requests: 59",
        "x-ratelimit-reset-requests: 1s",
        "x-ratelimit-limit-tokens: 150000",
        "x-ratelimit-remaining-tokens: 149984",
        "x-ratelimit-reset-tokens: 6m0s",
    ]
    only_tokens = allowance_headers(Allowance(limit_tokens=10, remaining_tokens=-3))
    assert only_tokens.startswith(b"x-ratelimit-limit-tokens: 10\r\n")
    assert b"x-ratelimit-remaining-tokens: 0\r\n" in only_tokens
    assert b"requests" not in only_tokens
    assert allowance_headers(NO_LIMITS) == b""


@pytest.mark.parametrize(
    ("is_worth_it", "after_seconds", "expected"),
    [
        (True, None, "x-should-retry: true"),
        (False, None, "x-should-retry: false"),
        (True, 0.0, "retry-after: 1|retry-after-ms: 1|x-should-retry: true"),
        (True, 0.2504, "retry-after: 1|retry-after-ms: 251|x-should-retry: true"),
        (True, 2.001, "retry-after: 3|retry-after-ms: 2001|x-should-retry: true"),
        (True, 60.0, "retry-after: 60|retry-after-ms: 60000|x-should-retry: true"),
        (True, 61.0, "retry-after: 61|retry-after-ms: 61000|x-should-retry: false"),
        (False, 3.0, "retry-after: 3|retry-after-ms: 3000|x-should-retry: false"),
    ],
)
def test_a_delay_is_rounded_up_and_a_long_one_is_nothing_to_sit_out(
    *, is_worth_it: bool, after_seconds: float | None, expected: str
) -> None:
    lines = retry_headers(is_worth_it=is_worth_it, after_seconds=after_seconds)
    assert lines.decode().splitlines() == expected.split("|")


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (BadRequest("x"), False), (Unauthorized(), False), (ModelNotFound("x"), False),
        (WrongVersion(), False), (InternalError(), True), (EngineFailed(), True),
        (Busy("x", retry_after_seconds=1), True),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_every_error_says_whether_asking_again_can_help(
    error: GatewayError, *, helps: bool
) -> None:
    assert (b"x-should-retry: %b\r\n" % (b"true" if helps else b"false")) in error_headers(error)


def test_a_browser_may_read_every_line_that_is_sent_here() -> None:
    sent = allowance_headers(ALL) + error_headers(Busy("x", retry_after_seconds=1))
    names = {line.partition(b":")[0] for line in sent.splitlines()}
    assert names < set(EXPOSED.split(b", "))
