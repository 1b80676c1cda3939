"""Who did what: recorded in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Model

from tenants.access import Caller
from tenants.models import AuditEvent, Organization


def audit_record(  # noqa: PLR0913 - the columns of the record
    caller: Caller,
    verb: str,
    *,
    target_type: str,
    target_id: object,
    organization_id: UUID | None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Say who did what. Call it in the transaction of the change: both are kept, or neither."""
    AuditEvent.objects.create(
        organization_id=organization_id,
        actor_type=caller.actor_type,
        actor_id=caller.actor_id,
        actor_label=caller.label,
        verb=verb,
        target_type=target_type,
        target_id=str(target_id),
        address=caller.address,
        detail=dict(detail or {}),
    )


def audit_of(
    caller: Caller,
    verb: str,
    target: Model,
    detail: Mapping[str, Any] | None = None,
    *,
    organization_id: UUID | None = None,
) -> None:
    owner = target.pk if isinstance(target, Organization) else None
    audit_record(
        caller,
        verb,
        target_type=str(target._meta.model_name),
        target_id=target.pk,
        organization_id=organization_id or owner or getattr(target, "organization_id", None),
        detail=detail,
    )
