"""The headers that tell a client how much is left and when to come back. Pure.

Names and duration form are OpenAI's. What clients do with them, read in ``openai`` 3.54 and
``anthropic`` (the same generator):

* ``retry-after-ms`` wins over ``retry-after``; the exact wait is slept, without jitter.
* ``x-should-retry`` wins over the status. Without it 408, 409, 429 and every 5xx are asked again.
* A wait above ``LONGEST_WAIT_SECONDS`` is not honoured alike: ``openai`` gives up above 120 s, its
  older releases came back at once above 60 s, ``anthropic`` sleeps through it. Hence the wait is
  told, and the answer says that trying again by itself cannot help.
"""

from __future__ import annotations

import math

from serving.admission.values import NO_LIMITS, Allowance

LONGEST_WAIT_SECONDS = 60.0
EXPOSED = (
    b"x-request-id, retry-after, retry-after-ms, x-should-retry,"
    b" idempotent-replayed, x-original-request-id,"
    b" x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests,"
    b" x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_REQUESTS = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
    b"x-ratelimit-reset-requests: %b\r\n"
)
_TOKENS = _REQUESTS.replace(b"requests", b"tokens")


def allowance_headers(allowance: Allowance) -> bytes:
    """Three lines per limit that there is; ``reset`` is when the limit is whole again."""
    if allowance is NO_LIMITS:
        return b""
    requests, tokens = allowance.limit_requests, allowance.limit_tokens
    lines = b""
    if requests is not None:
        left, reset = allowance.remaining_requests or 0, allowance.reset_requests_seconds or 0.0
        lines = _REQUESTS % (requests, max(0, left), duration(reset))
    if tokens is not None:
        left, reset = allowance.remaining_tokens or 0, allowance.reset_tokens_seconds or 0.0
        lines += _TOKENS % (tokens, max(0, left), duration(reset))
    return lines


def retry_headers(*, is_worth_it: bool, after_seconds: float | None) -> bytes:
    """Whether and when to come back. Both delays are rounded up, so that nobody is early."""
    if after_seconds is None:
        return b"x-should-retry: true\r\n" if is_worth_it else b"x-should-retry: false\r\n"
    is_soon = after_seconds <= LONGEST_WAIT_SECONDS
    return b"retry-after: %d\r\nretry-after-ms: %d\r\nx-should-retry: %b\r\n" % (
        max(1, math.ceil(after_seconds)),
        max(1, math.ceil(after_seconds * 1000)),
        b"true" if is_worth_it and is_soon else b"false",
    )


def duration(seconds: float) -> bytes:
    """As Go prints one, in whole milliseconds rounded up: 12ms, 1.5s, 6m0s, 1h2m3.5s."""
    millis = math.ceil(seconds * 1000)
    if millis < 1000:
        return b"%dms" % millis if millis > 0 else b"0s"
    if millis < 60_000:
        return b"%gs" % (millis / 1000)
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    rest = b"%dm%gs" % (minutes, millis / 1000)
    return b"%dh%b" % (hours, rest) if hours else rest
