"""Limits: what plans give, what operators set for organizations, what these set below their own.

Each change raises the version of whoever's keys it is about; gateways hold to it within 5 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import F

from kernel.errors import Invalid
from tenants import selectors
from tenants.access import Caller, Permission
from tenants.models import (
    MOST_NANO,
    MOST_WEIGHT,
    ApiKey,
    Billing,
    Organization,
    OwnLimits,
    Plan,
    Project,
    Quota,
)
from tenants.scope import organization_scope, platform_scope
from tenants.services.audit import audit_of

# What a project or key can have of its own; an organization has storage as well, a plan no budget.
BEARER_FIELDS = ("requests_per_minute", "tokens_per_minute", "concurrency", "budget_nano")
QUOTA_FIELDS = (*BEARER_FIELDS, "storage_bytes")
PLAN_FIELDS = ("requests_per_minute", "tokens_per_minute", "concurrency", "storage_bytes")

# Redis counts them in numbers that are exact far beyond these; PostgreSQL's columns hold them.
_MOST = {
    "requests_per_minute": 10**9,
    "tokens_per_minute": 10**12,
    "concurrency": 10**6,
    "budget_nano": MOST_NANO,
    "storage_bytes": 2**60,
}
_LEAST = {"budget_nano": 0, "storage_bytes": 0}  # nothing may be spent, nothing stored
_WORDS = {
    "requests_per_minute": "{:,} requests a minute",
    "tokens_per_minute": "{:,} tokens a minute",
    "concurrency": "{:,} calls at a time",
    "storage_bytes": "{:,} bytes",
}


def plan_set(organization_id: UUID, *, caller: Caller, plan: str) -> Organization:
    caller.require(Permission.OPERATE)
    with organization_scope(organization_id):
        organization = selectors.organization_get(organization_id)
        before, organization.plan = organization.plan, selectors.plan_get(plan)
        organization.save(update_fields=["plan"])
        _raise_version(organization_id)
        audit_of(caller, "plan.set", organization, {"before": before.code, "after": plan})
    return organization


def plan_save(plan: Plan, *, caller: Caller) -> Plan:
    """Add a plan or change its limits, which hold within seconds for everybody who has it."""
    caller.require(Permission.OPERATE)
    _check({field: getattr(plan, field) for field in PLAN_FIELDS})
    if not 1 <= plan.weight <= MOST_WEIGHT:
        raise Invalid(f"A weight is 1 to {MOST_WEIGHT:,}.", param="weight", rule="plan_weight")
    shown = (*PLAN_FIELDS, "tier", "weight", "billing")
    with platform_scope():
        plan.save()
        Organization.objects.filter(plan=plan).update(version=F("version") + 1)
        audit_of(caller, "plan.save", plan, {field: getattr(plan, field) for field in shown})
    return plan


def billing_set(organization_id: UUID, *, caller: Caller, billing: Billing | None) -> Organization:
    """How an organization pays; None follows its plan."""
    caller.require(Permission.OPERATE)
    with organization_scope(organization_id):
        organization = selectors.organization_get(organization_id)
        before, organization.billing = organization.billing, billing or ""
        organization.save(update_fields=["billing"])
        _raise_version(organization_id)
        audit_of(caller, "billing.set", organization, {"before": before, "after": billing or ""})
    return organization


def quota_set(
    organization_id: UUID,
    *,
    caller: Caller,
    limits: Mapping[str, int | None],
    project_id: UUID | None = None,
) -> Quota:
    """Replace the quota of an organization or a project; a limit that is None follows the plan."""
    caller.require(Permission.OPERATE)
    _check(limits)
    values = {field: limits.get(field) for field in QUOTA_FIELDS}
    with organization_scope(organization_id):
        project = selectors.project_get(organization_id, project_id) if project_id else None
        quota, _ = Quota.objects.update_or_create(
            organization_id=organization_id, project=project, defaults=values
        )
        _raise_version(organization_id, project)
        audit_of(caller, "quota.set", quota, values, organization_id=organization_id)
    return quota


def project_limits_set(
    organization_id: UUID, project_id: UUID, *, caller: Caller, limits: Mapping[str, int | None]
) -> Quota:
    """Change limits of a project's own, none above its organization's; None takes one away."""
    caller.require(Permission.LIMIT_MANAGE, organization_id=organization_id)
    _check(limits, allowed=BEARER_FIELDS)
    with organization_scope(organization_id):
        project = selectors.project_get(organization_id, project_id)
        _check_below(limits, organization_id)
        quota, _ = Quota.objects.get_or_create(organization_id=organization_id, project=project)
        _change(quota, limits)
        _raise_version(organization_id, project)
        audit_of(caller, "limits.set", project, dict(limits))
    return quota


def key_limits_set(
    organization_id: UUID, key_id: UUID, *, caller: Caller, limits: Mapping[str, int | None]
) -> ApiKey:
    """Change limits of a key's own, none above its project's or organization's; None takes one
    away.
    """
    caller.require(Permission.LIMIT_MANAGE, organization_id=organization_id)
    _check(limits, allowed=BEARER_FIELDS)
    with organization_scope(organization_id):
        key = selectors.key_get(organization_id, key_id)
        _check_below(limits, organization_id, project=key.project)
        key = ApiKey.objects.select_for_update().get(id=key.id)
        key.version += 1
        _change(key, limits, "version")
        audit_of(caller, "limits.set", key, {"name": key.name, **limits})
    return key


def _check(limits: Mapping[str, int | None], allowed: tuple[str, ...] = QUOTA_FIELDS) -> None:
    for field, value in limits.items():
        if field not in allowed:
            raise Invalid(f"There is no limit called {field!r} here.", param=field)
        if value is not None and not (least := _LEAST.get(field, 1)) <= value <= _MOST[field]:
            raise Invalid(
                f"This limit is {_said(field, least)} to {_said(field, _MOST[field])},"
                " or none of its own.",
                param=field,
                rule="limit_range",
            )


def _check_below(
    limits: Mapping[str, int | None], organization_id: UUID, project: Project | None = None
) -> None:
    """A limit above one that every call has to pass as well would never be met: say so now."""
    above: list[tuple[str, Any]] = [("The organization", selectors.limits_get(organization_id))]
    if project and (own := selectors.project_quota(organization_id, project.id)):
        above.insert(0, ("Its project", own))
    for field, value in limits.items():
        for bearer, bound in above:
            most = getattr(bound, field)
            if value is not None and most is not None and value > most:
                raise Invalid(
                    f"{bearer} allows {_said(field, most)}; a limit above that would never be met.",
                    param=field,
                    rule="limit_below_parent",
                )


def _said(field: str, value: int) -> str:
    if field == "budget_nano":
        return f"{value / 10**9:,.2f} US dollars a month"
    return _WORDS[field].format(value)


def _change(row: OwnLimits, limits: Mapping[str, int | None], *also: str) -> None:
    for field, value in limits.items():
        setattr(row, field, value)
    row.save(update_fields=[*limits, *also])


def _raise_version(organization_id: UUID, project: Project | None = None) -> None:
    """Principals of the organization's keys, or of its project's, are newer than what is cached."""
    if project is None:
        Organization.objects.filter(id=organization_id).update(version=F("version") + 1)
    else:
        Project.objects.filter(id=project.id).update(version=F("version") + 1)
