"""Every reason for which a call is not let in, and what its caller is told. Pure.

One table, total over admission's reasons and two of our own (``NO_PRICE``, ``NOT_READY``):
whose fault it is (429 theirs, 503 ours), the rule, whose rule it is, the way out, and whether the
client should come back by itself. The reason is the answer's ``code``; its ``type`` is OpenAI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from serving.admission.values import Reason, Refusal
from serving.gateway.errors import Busy, GatewayError, QuotaUsedUp, RateLimited
from serving.gateway.ratelimit_headers import allowance_headers

NO_PRICE = "no_price"
NOT_READY = "model_not_ready"

_LIMITS = " The portal's page 'Limits' shows what applies and who can raise it."
_BEARERS = {"org": "your organization", "project": "this project", "key": "this API key"}


@dataclass(frozen=True, slots=True)
class Answer:
    """``message`` may name ``{scope}`` and ``{model}``."""

    kind: type[GatewayError]
    message: str
    delay_seconds: float | None = 1.0  # where admission names none; None: none is known
    retryable: bool = True
    param: str | None = None


ANSWERS: Final[dict[str, Answer]] = {
    # Theirs
    Reason.REQUESTS_PER_MINUTE: Answer(
        RateLimited,
        "The limit of requests per minute of {scope} is reached. Send fewer at a time, or wait as"
        " long as 'retry-after' says." + _LIMITS,
    ),
    Reason.TOKENS_PER_MINUTE: Answer(
        RateLimited,
        "The limit of tokens per minute of {scope} is reached; a prompt and its output limit count"
        " together. Lower 'max_tokens', or wait as long as 'retry-after' says." + _LIMITS,
    ),
    Reason.CONCURRENCY: Answer(
        RateLimited,
        "As many requests of {scope} are under way as may be at once. Wait for one to end."
        + _LIMITS,
    ),
    Reason.INSUFFICIENT_BALANCE: Answer(
        QuotaUsedUp,
        "The prepaid balance of {scope} does not cover this request. Top it up on the portal's"
        " page 'Billing', or lower 'max_tokens'.",
        delay_seconds=None,
        retryable=False,
    ),
    Reason.BUDGET_EXCEEDED: Answer(
        QuotaUsedUp,
        "The monthly budget of {scope} does not cover this request. It begins anew with the"
        " calendar month (UTC), or when an owner raises it." + _LIMITS,
        delay_seconds=None,
        retryable=False,
    ),
    # Ours
    Reason.POOL_FULL: Answer(
        Busy, "All places of '{model}' are taken right now; try again shortly."
    ),
    Reason.QUEUE_FULL: Answer(
        Busy, "Too many requests wait for '{model}' already; try again shortly.", 2.0
    ),
    Reason.QUEUE_TIMEOUT: Answer(
        Busy, "No place for '{model}' became free in time; try again shortly.", 2.0
    ),
    Reason.BALANCE_UNAVAILABLE: Answer(
        Busy,
        "What {scope} has left to spend cannot be checked right now; nothing was charged. Try"
        " again shortly.",
        2.0,
    ),
    NO_PRICE: Answer(
        Busy,
        "The model '{model}' has no price yet, so it is not served. That is ours to mend; nothing"
        " was charged.",
        delay_seconds=None,
        retryable=False,
        param="model",
    ),
    NOT_READY: Answer(
        Busy,
        "The model '{model}' is not ready yet; its deployment page says why.",
        5.0,
        param="model",
    ),
}


def refusal(
    reason: str, *, model: str, subject: str = "", delay_seconds: float | None = None
) -> GatewayError:
    """The answer for a reason. ``subject`` is the id of the limited one, where it is a limit."""
    answer = ANSWERS[reason]
    whose = _BEARERS.get(subject.partition(":")[0], "your account")
    error = answer.kind(
        answer.message.format(model=model, scope=whose),
        code=str(reason),
        param=answer.param,
        retry_after_seconds=answer.delay_seconds if delay_seconds is None else delay_seconds,
    )
    error.retryable = answer.retryable
    return error


def refused(by: Refusal, *, model: str) -> GatewayError:
    """Admission's refusal with what is left of the caller's limits."""
    delay = by.retry_after_seconds or None
    error = refusal(by.reason, model=model, subject=by.subject, delay_seconds=delay)
    error.headers = allowance_headers(by.allowance)
    return error
