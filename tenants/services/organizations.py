"""Organizations, their projects, plans and quotas."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django.db.models import F
from django.utils import timezone
from django.utils.text import slugify

from kernel.errors import Invalid
from kernel.ids import uuid7
from tenants import selectors
from tenants.access import Caller, Permission
from tenants.errors import NameTaken
from tenants.models import Membership, Organization, Plan, Project, Quota, Role, User
from tenants.scope import organization_scope, platform_scope
from tenants.services.audit import audit_of
from tenants.services.keys import push_revoked
from tenants.services.rules import constraint_becomes, name_checked, slug_checked

DEFAULT_PLAN = "starter"
QUOTA_FIELDS = ("requests_per_minute", "tokens_per_minute", "concurrency", "storage_bytes")


def organization_create(
    caller: Caller, *, name: str, owner: User, slug: str = "", plan: str = DEFAULT_PLAN
) -> Organization:
    """A new organization with its first project and its first owner."""
    organization = Organization(
        id=uuid7(),
        name=name_checked(name),
        slug=slug_checked(slug or slugify(name)[:40]),
        plan=selectors.plan_get(plan),
    )
    taken = NameTaken(
        f"The short name {organization.slug!r} is taken. Choose another.", param="slug"
    )
    with constraint_becomes(organization_slug_unique=taken), organization_scope(organization.id):
        organization.save(force_insert=True)
        Project.objects.create(organization=organization, name="Default", slug="default")
        Membership.objects.create(organization=organization, user=owner, role=Role.OWNER)
        audit_of(caller, "organization.create", organization, {"slug": organization.slug})
    return organization


def organization_rename(organization_id: UUID, *, caller: Caller, name: str) -> Organization:
    caller.require(Permission.ORGANIZATION_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        organization = selectors.organization_get(organization_id)
        before, organization.name = organization.name, name_checked(name)
        organization.save(update_fields=["name"])
        audit_of(caller, "organization.rename", organization, {"before": before})
    return organization


def organization_suspend(organization_id: UUID, *, caller: Caller) -> None:
    """None of its keys works from now on; nothing is deleted."""
    caller.require(Permission.OPERATE)
    with organization_scope(organization_id):
        organization = selectors.organization_get(organization_id)
        Organization.objects.filter(id=organization_id).update(
            suspended_at=timezone.now(), version=F("version") + 1
        )
        audit_of(caller, "organization.suspend", organization)
        for key in selectors.key_list(organization_id).filter(revoked_at=None):
            push_revoked(key)


def organization_resume(organization_id: UUID, *, caller: Caller) -> None:
    caller.require(Permission.OPERATE)
    with organization_scope(organization_id):
        organization = selectors.organization_get(organization_id)
        Organization.objects.filter(id=organization_id).update(
            suspended_at=None, version=F("version") + 1
        )
        audit_of(caller, "organization.resume", organization)


def plan_set(organization_id: UUID, *, caller: Caller, plan: str) -> Organization:
    caller.require(Permission.OPERATE)
    with organization_scope(organization_id):
        organization = selectors.organization_get(organization_id)
        before, organization.plan = organization.plan, selectors.plan_get(plan)
        organization.save(update_fields=["plan"])
        audit_of(caller, "plan.set", organization, {"before": before.code, "after": plan})
    return organization


def plan_save(plan: Plan, *, caller: Caller) -> Plan:
    """Add a plan or change its limits, which hold at once for everybody who has it."""
    caller.require(Permission.OPERATE)
    with platform_scope():
        plan.save()
        audit_of(caller, "plan.save", plan, {field: getattr(plan, field) for field in QUOTA_FIELDS})
    return plan


def quota_set(
    organization_id: UUID,
    *,
    caller: Caller,
    limits: Mapping[str, int | None],
    project_id: UUID | None = None,
) -> Quota:
    """Replace the quota of an organization or a project; a limit that is None follows the plan."""
    caller.require(Permission.OPERATE)
    if unknown := sorted(set(limits) - set(QUOTA_FIELDS)):
        raise Invalid(f"There is no limit called {unknown[0]!r}.", param=unknown[0])
    values = {field: limits.get(field) for field in QUOTA_FIELDS}
    with organization_scope(organization_id):
        project = project_id and selectors.project_get(organization_id, project_id)
        quota, _ = Quota.objects.update_or_create(
            organization_id=organization_id, project=project, defaults=values
        )
        audit_of(caller, "quota.set", quota, values, organization_id=organization_id)
    return quota


def project_create(organization_id: UUID, *, caller: Caller, name: str, slug: str = "") -> Project:
    caller.require(Permission.PROJECT_MANAGE, organization_id=organization_id)
    project = Project(
        organization_id=organization_id,
        name=name_checked(name),
        slug=slug_checked(slug or slugify(name)[:40]),
    )
    taken = NameTaken(f"There is a project {project.slug!r} already.", param="slug")
    with (
        constraint_becomes(project_slug_unique_in_organization=taken),
        organization_scope(organization_id),
    ):
        project.save(force_insert=True)
        audit_of(caller, "project.create", project, {"slug": project.slug})
    return project


def project_rename(
    organization_id: UUID, project_id: UUID, *, caller: Caller, name: str
) -> Project:
    caller.require(Permission.PROJECT_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        project = selectors.project_get(organization_id, project_id)
        before, project.name = project.name, name_checked(name)
        project.save(update_fields=["name"])
        audit_of(caller, "project.rename", project, {"before": before})
    return project
