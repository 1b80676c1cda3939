"""Reads. The organization is an argument of every one, except of those whose name says whose rows
they find.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.views.decorators.debug import sensitive_variables

from kernel.errors import NotFound
from kernel.keys import key_is_wellformed, key_mac
from tenants.models import (
    ApiKey,
    AuditEvent,
    Billing,
    Membership,
    Organization,
    OwnLimits,
    Plan,
    Project,
    Quota,
    Scope,
    User,
)
from tenants.scope import platform_scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is behind a key, as the SQL function that the gateway asks says it."""

    key_id: str
    organization_id: UUID
    project_id: UUID
    scopes: tuple[Scope, ...]
    models: tuple[str, ...]
    environment: str
    version: int
    active: bool
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds after plan and quotas are laid over each other."""

    requests_per_minute: int
    tokens_per_minute: int
    concurrency: int
    storage_bytes: int
    budget_nano: int | None  # nano-USD in a calendar month (UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """An organization, a project or a key with the limits that calls are held to at it.

    None: not limited here. ``is_budget_hard``: never overrun; a soft budget lets a call start
    while any of it is left.
    """

    scope: Literal["organization", "project", "key"]
    id: UUID
    name: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    budget_nano: int | None
    is_budget_hard: bool = True


@sensitive_variables("text", "mac")
def principal_by_key(text: str) -> Principal | None:
    """Whoever holds this key, also when it is no longer active; nonsense costs no query."""
    if not key_is_wellformed(text):
        return None
    mac = key_mac(bytes.fromhex(settings.TESSERA_KEY_PEPPER), text)
    with connection.cursor() as cursor:
        row = cursor.execute("SELECT * FROM tessera_principal(%s)", [mac]).fetchone()
    if row is None:
        return None
    key_id, organization, project, scopes, models, environment, version, active, expires = row
    return Principal(
        key_id=key_id,
        organization_id=UUID(organization),
        project_id=UUID(project),
        scopes=tuple(Scope(scope) for scope in scopes),
        models=tuple(models),
        environment=environment,
        version=version,
        active=active,
        expires_at=None if expires is None else datetime.fromtimestamp(expires, UTC),
    )


def membership_list_of_user(user: User) -> list[Membership]:
    """The organizations that somebody belongs to: the one read that crosses organizations for a
    person.
    """
    with platform_scope():
        return list(
            Membership.objects.filter(user=user)
            .select_related("organization")
            .order_by("organization__slug")
        )


def membership_of_user(user: User, organization: str) -> Membership:
    """The membership in an organization named by id or slug; anybody else's organization is not
    found.
    """
    match = Q(organization__slug=organization)
    if (identifier := as_uuid(organization)) is not None:
        match |= Q(organization_id=identifier)
    with platform_scope():
        found = Membership.objects.filter(match, user=user).select_related("organization").first()
    if found is None:
        raise NotFound("There is no organization of yours by that name.", param="organization")
    return found


def organization_get(organization_id: UUID) -> Organization:
    found = Organization.objects.filter(id=organization_id).select_related("plan").first()
    if found is None:
        raise NotFound
    return found


def project_list(organization_id: UUID) -> QuerySet[Project]:
    return Project.objects.filter(organization_id=organization_id)


def project_get(organization_id: UUID, project: str | UUID) -> Project:
    """A project by id or slug."""
    match = Q(slug=str(project))
    if (identifier := as_uuid(project)) is not None:
        match |= Q(id=identifier)
    found = project_list(organization_id).filter(match).first()
    if found is None:
        raise NotFound("There is no project by that name.", param="project")
    return found


def project_default(organization_id: UUID) -> Project:
    """The project that is meant where none is named: the oldest."""
    found = project_list(organization_id).order_by("id").first()
    if found is None:
        raise NotFound("This organization has no project yet; create one.", param="project")
    return found


def member_list(organization_id: UUID) -> QuerySet[Membership]:
    return Membership.objects.filter(organization_id=organization_id).select_related("user")


def member_get(organization_id: UUID, membership_id: UUID) -> Membership:
    found = member_list(organization_id).filter(id=membership_id).first()
    if found is None:
        raise NotFound("There is no member by that id.")
    return found


def key_list(organization_id: UUID) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(organization_id=organization_id).select_related(
        "project", "created_by"
    )


def key_get(organization_id: UUID, key_id: UUID) -> ApiKey:
    found = key_list(organization_id).filter(id=key_id).first()
    if found is None:
        raise NotFound("There is no key by that id.")
    return found


def audit_list(
    organization_id: UUID, *, verb: str = "", target_id: str = ""
) -> QuerySet[AuditEvent]:
    events = AuditEvent.objects.filter(organization_id=organization_id)
    if verb:
        events = events.filter(verb=verb)
    return events.filter(target_id=target_id) if target_id else events


def plan_list() -> QuerySet[Plan]:
    """Plans belong to the installation; everybody sees the same."""
    return Plan.objects.all()


def plan_get(code: str) -> Plan:
    found = Plan.objects.filter(code=code).first()
    if found is None:
        raise NotFound(f"There is no plan {code!r}.", param="plan")
    return found


def limits_get(organization_id: UUID, project_id: UUID | None = None) -> Limits:
    """The organization's limits, or those of one of its projects: the first value set, nearest
    first.
    """
    organization = organization_get(organization_id)
    quotas = {
        quota.project_id: quota for quota in Quota.objects.filter(organization_id=organization_id)
    }
    layers = (quotas.get(project_id), quotas.get(None), organization.plan)
    return Limits(
        requests_per_minute=_first_set("requests_per_minute", layers),
        tokens_per_minute=_first_set("tokens_per_minute", layers),
        concurrency=_first_set("concurrency", layers),
        storage_bytes=_first_set("storage_bytes", layers),
        budget_nano=_budget(
            organization, quotas.get(project_id) if project_id else quotas.get(None)
        ),
    )


def project_quota(organization_id: UUID, project_id: UUID) -> Quota | None:
    return Quota.objects.filter(organization_id=organization_id, project_id=project_id).first()


def bearer_list(organization_id: UUID) -> tuple[Bearer, ...]:
    """The organization, each of its projects, and the keys in use that have limits of their own."""
    organization, limits = organization_get(organization_id), limits_get(organization_id)
    quotas = {
        quota.project_id: quota for quota in Quota.objects.filter(organization_id=organization_id)
    }
    projects = (
        _bearer("project", project.id, project.name, quotas.get(project.id, _NO_LIMITS))
        for project in project_list(organization_id).order_by("id")
    )
    keys = (_bearer("key", key.id, key.name, key) for key in keys_with_limits(organization_id))
    return (
        replace(
            _bearer("organization", organization.id, organization.name, limits),
            is_budget_hard=False,
        ),
        *projects,
        *keys,
    )


def keys_active(organization_id: UUID) -> QuerySet[ApiKey]:
    """Keys that work, by the database's clock, oldest first."""
    return (
        key_list(organization_id)
        .filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)
        .order_by("id")
    )


def keys_with_limits(organization_id: UUID) -> QuerySet[ApiKey]:
    """Keys in use that have a limit of their own."""
    return keys_active(organization_id).exclude(
        requests_per_minute=None, tokens_per_minute=None, concurrency=None, budget_nano=None
    )


def as_uuid(text: str | UUID) -> UUID | None:
    """An id where the text is one."""
    try:
        return text if isinstance(text, UUID) else UUID(text)
    except ValueError:
        return None


_NO_LIMITS = Quota()


def _bearer(
    scope: Literal["organization", "project", "key"], id_: UUID, name: str, own: Limits | OwnLimits
) -> Bearer:
    return Bearer(
        scope=scope,
        id=id_,
        name=name,
        requests_per_minute=own.requests_per_minute,
        tokens_per_minute=own.tokens_per_minute,
        concurrency=own.concurrency,
        budget_nano=own.budget_nano,
    )


def _budget(organization: Organization, quota: Quota | None) -> int | None:
    """A balance takes the place of a monthly limit where an organization pays first."""
    if quota is None:
        return None
    pays_first = organization.billing_mode is Billing.PREPAID
    return None if pays_first and quota.project_id is None else quota.budget_nano


def _first_set(name: str, layers: tuple[Quota | Plan | None, ...]) -> int:
    values: Iterator[int | None] = (getattr(each, name) for each in layers if each is not None)
    return next(value for value in values if value is not None)
