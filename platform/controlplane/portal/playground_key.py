"""The playground's key: short-lived, one per person, good for calling models and nothing else."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from controlplane.portal.access import Member
from tenants import selectors, services
from tenants.models import ApiKey, Scope, User
from tenants.services import NewKey

LIFETIME = timedelta(hours=1)
_NAME_LENGTH = 80


def playground_key_issue(member: Member, project_id: UUID) -> NewKey:
    """A new key for this person and project; the one they had before stops working."""
    organization_id = member.organization.id
    for key in selectors.key_list(organization_id).filter(
        name=_name(member.user), created_by=member.user, revoked_at=None
    ):
        services.key_revoke(organization_id, key.id, caller=member.caller)
    return services.key_create(
        organization_id,
        caller=member.caller,
        name=_name(member.user),
        scopes=[Scope.INFERENCE],
        project=str(project_id),
        expires_at=timezone.now() + LIFETIME,
    )


def is_playground_key(key: ApiKey) -> bool:
    """Whether the key was made here; the list of keys passes over those that are used up."""
    return key.created_by is not None and key.name == _name(key.created_by)


def _name(user: User) -> str:
    return f"Playground of {user.email}"[:_NAME_LENGTH]
