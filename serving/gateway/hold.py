"""May it start: what is asked of admission, and its refusal in words.

``admission_request`` is pure; ``take`` asks and waits.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from kernel.clock import micros, monotonic
from kernel.usage import (
    balance_account,
    key_account,
    organization_account,
    project_account,
    usage_month,
)
from serving.admission.values import (
    AdmissionRequest,
    Demand,
    Grant,
    Money,
    Queued,
    Refusal,
    Subject,
    Used,
)
from serving.gateway.fields import Wanted
from serving.gateway.metrics import Metrics
from serving.gateway.principals import Limits, Principal
from serving.gateway.refusals import refused
from serving.gateway.settle import UNUSED
from serving.gateway.what import Target

# What a chat template adds at most to a body that is counted whole: roles and markers of a message
# take fewer tokens than its own JSON has bytes; a system prompt of the template's own is this.
TEMPLATE_TOKENS = 256
TOOLS_EXPANSION = 4  # templates print tools again, indented
_TO_ANSWER_SECONDS = 1.0  # what a client that waits so long still has to receive
_PREFIXES = {"organization": "org", "project": "project", "key": "key"}


class Admission(Protocol):
    async def admit(self, request: AdmissionRequest) -> Grant | Refusal | Queued: ...
    def shrink(self, grant: Grant, input_tokens: int) -> None: ...
    def settle(self, grant: Grant, used: Used) -> None: ...


def demand(wanted: Wanted, target: Target, limit: int | None) -> Demand:
    """The upper bound of a call: a token is at least one byte of the body, and at most the context.

    ``limit`` is the output limit that goes upstream; none where the context is the tighter bound.
    """
    context = target.pool.context_tokens
    price = target.price
    rendered = wanted.prompt_bytes * (TOOLS_EXPANSION if wanted.has_tools else 1)
    return Demand(
        input_tokens=min(rendered + TEMPLATE_TOKENS, context * wanted.prompts),
        output_tokens=limit or context,
        choices=wanted.choices * wanted.prompts,
        input_nano=max(price.input, price.cached_input),
        output_nano=price.output,
    )


def admission_request(  # noqa: PLR0913 - everything that a call is judged by
    principal: Principal,
    wanted: Wanted,
    target: Target,
    *,
    grant_id: str,
    slots: int,
    limit: int | None,
    queue_seconds: float,
    now: float,
) -> AdmissionRequest:
    """Everything that admission has to know of a call.

    ``queue_seconds`` is the longest wait for a slot; ``now``, seconds since the epoch.
    """
    month = usage_month(micros(now))
    return AdmissionRequest(
        grant_id=grant_id,
        pool=target.pool.id,
        slots=slots,
        demand=demand(wanted, target, limit),
        subjects=subjects(principal, month),
        tenant=principal.organization,
        tier=principal.tier,
        weight=principal.weight,
        wait_seconds=wait_seconds(queue_seconds, wanted.client_seconds),
        body_bytes=wanted.prompt_bytes,
    )


def subjects(principal: Principal, month: str) -> tuple[Subject, ...]:
    """Every bearer of limits that a principal's call has to pass."""
    found = [_subject(limits, principal, month) for limits in principal.limits]
    has_organization = any(limits.scope == "organization" for limits in principal.limits)
    if principal.billing == "prepaid" and not has_organization:
        unlimited = Limits(scope="organization", id=principal.organization)
        found.append(_subject(unlimited, principal, month))
    return tuple(found)


def wait_seconds(bound: float, client_seconds: float | None) -> float:
    """How long a call may wait for a slot: the answer has to arrive while somebody reads."""
    if client_seconds is None:
        return bound
    return max(0.0, min(bound, client_seconds - _TO_ANSWER_SECONDS))


async def take(
    admission: Admission, request: AdmissionRequest, *, model: str, metrics: Metrics
) -> Grant:
    """A slot in the target's pool, at once or after a wait in its queue.

    Raises ``GatewayError`` with the reason as its code; then nothing is held.
    """
    answer = await admission.admit(request)
    if isinstance(answer, Queued):
        since = monotonic()
        answer = await _granted(admission, answer)
        metrics.observe("tessera_gateway_queue_seconds", monotonic() - since)
    if isinstance(answer, Refusal):
        metrics.count("tessera_gateway_refusals_total", "reason", answer.reason)
        raise refused(answer, model=model)
    return answer


def most(request: AdmissionRequest, grant: Grant) -> tuple[int, int]:
    """The input and output tokens, over all answers, that a grant holds money for."""
    return request.demand.input_tokens, request.demand.choices * grant.output_tokens


async def _granted(admission: Admission, queued: Queued) -> Grant | Refusal:
    """A client that leaves at the very moment of the grant leaves nothing taken."""
    try:
        return await queued.granted
    except asyncio.CancelledError:
        if queued.granted.done() and not queued.granted.cancelled():
            late = queued.granted.result()
            if isinstance(late, Grant):
                admission.settle(late, UNUSED)
        raise


def granted_limit(limit: int | None, request: AdmissionRequest, grant: Grant) -> int | None:
    """The output limit that goes upstream: what was wanted, or the less that the balance covers."""
    return grant.output_tokens if grant.output_tokens < request.demand.output_tokens else limit


def _subject(limits: Limits, principal: Principal, month: str) -> Subject:
    return Subject(
        id=f"{_PREFIXES[limits.scope]}:{limits.id}",
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrency=limits.concurrency,
        money=_money(limits, principal, month),
    )


def _money(limits: Limits, principal: Principal, month: str) -> Money | None:
    if limits.scope == "organization" and principal.billing == "prepaid":
        return Money(account=balance_account(limits.id), budget_nano=0, is_hard=True)
    if limits.budget_nano is None:
        return None
    account = _ACCOUNTS[limits.scope](limits.id, month)
    is_hard = limits.scope != "organization"
    return Money(account=account, budget_nano=limits.budget_nano, is_hard=is_hard)


_ACCOUNTS = {
    "organization": organization_account,
    "project": project_account,
    "key": key_account,
}
