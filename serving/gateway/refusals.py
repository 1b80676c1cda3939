"""Every reason for which admission refuses a call, and what its caller is told. Pure.

One table: whose fault it is (429 theirs, 503 ours), the rule, whose rule it is, the way out, and
whether the client should come back by itself. The reason is the answer's machine-readable
``code``; its ``type`` is OpenAI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from serving.gateway.errors import Busy, GatewayError, QuotaUsedUp, RateLimited

_LIMITS = " The portal's page 'Limits' shows what applies and who can raise it."
_SCOPES = {"organization": "your organization", "project": "this project", "key": "this API key"}


@dataclass(frozen=True, slots=True)
class Answer:
    """``message`` may name ``{scope}`` and ``{model}``."""

    kind: type[GatewayError]
    message: str
    delay_seconds: float | None = 1.0  # where admission names none; None: none is known
    retryable: bool = True
    param: str | None = None


ANSWERS: Final = {
    # Theirs
    "requests_per_minute": Answer(
        RateLimited,
        "The limit of requests per minute of {scope} is reached. Send fewer at a time, or wait as"
        " long as 'retry-after' says." + _LIMITS,
    ),
    "tokens_per_minute": Answer(
        RateLimited,
        "The limit of tokens per minute of {scope} is reached; a prompt and its output limit count"
        " together. Lower 'max_tokens', or wait as long as 'retry-after' says." + _LIMITS,
    ),
    "concurrency": Answer(
        RateLimited,
        "As many requests of {scope} are under way as may be at once. Wait for one to end."
        + _LIMITS,
    ),
    "insufficient_balance": Answer(
        QuotaUsedUp,
        "The prepaid balance of {scope} does not cover this request. Top it up on the portal's"
        " page 'Billing', or lower 'max_tokens'.",
        delay_seconds=None,
        retryable=False,
    ),
    "budget_exceeded": Answer(
        QuotaUsedUp,
        "The monthly budget of {scope} does not cover this request. It begins anew with the"
        " calendar month (UTC), or when an owner raises it." + _LIMITS,
        delay_seconds=None,
        retryable=False,
    ),
    # Ours
    "pool_full": Answer(Busy, "All places of '{model}' are taken right now; try again shortly."),
    "queue_full": Answer(
        Busy, "Too many requests wait for '{model}' already; try again shortly.", 2.0
    ),
    "queue_timeout": Answer(
        Busy, "No place for '{model}' became free in time; try again shortly.", 2.0
    ),
    "balance_unavailable": Answer(
        Busy,
        "The prepaid balance of {scope} cannot be checked right now; nothing was charged. Try"
        " again shortly.",
        2.0,
    ),
    "no_price": Answer(
        Busy,
        "The model '{model}' has no price yet, so it is not served. That is ours to mend; nothing"
        " was charged.",
        delay_seconds=None,
        retryable=False,
        param="model",
    ),
    "model_not_ready": Answer(
        Busy,
        "The model '{model}' is not ready yet; its deployment page says why.",
        5.0,
        param="model",
    ),
}
REASONS: Final = frozenset(ANSWERS)


def refusal(
    reason: str, *, model: str, scope: str = "", retry_after_seconds: float | None = None
) -> GatewayError:
    """The answer for one of ``REASONS``. ``scope`` says whose limit it is, where it is one."""
    answer = ANSWERS[reason]
    whose = _SCOPES.get(scope, "your account")
    error = answer.kind(
        answer.message.format(model=model, scope=whose),
        code=reason,
        param=answer.param,
        retry_after_seconds=answer.delay_seconds
        if retry_after_seconds is None
        else retry_after_seconds,
    )
    error.retryable = answer.retryable
    return error
