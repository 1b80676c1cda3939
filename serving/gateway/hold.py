"""May it start: what is asked of admission, and its refusal in words."""

from __future__ import annotations

from typing import Protocol

from serving.admission.values import AdmissionRequest, Grant, Refusal
from serving.gateway.errors import Busy
from serving.gateway.what import Target


class Admission(Protocol):
    async def admit(self, request: AdmissionRequest) -> Grant | Refusal: ...
    def settle(self, grant: Grant) -> None: ...


async def take(admission: Admission, target: Target, *, grant_id: str, slots: int) -> Grant:
    """A slot in the target's pool. Raises ``Busy`` with the reason as its code."""
    answer = await admission.admit(
        AdmissionRequest(grant_id=grant_id, pool=target.pool.id, slots=slots)
    )
    if isinstance(answer, Refusal):
        raise Busy(
            f"All places of '{target.route.name}' are taken right now; try again shortly.",
            code=answer.reason,
            retry_after_seconds=answer.retry_after_seconds,
        )
    return answer
