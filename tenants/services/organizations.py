"""Organizations and their projects."""

from __future__ import annotations

from uuid import UUID

from django.db.models import F
from django.utils import timezone
from django.utils.text import slugify

from kernel.ids import uuid7
from tenants import selectors
from tenants.access import Caller, Permission
from tenants.errors import NameTaken
from tenants.models import Membership, Organization, Project, Role, User
from tenants.scope import organization_scope
from tenants.services.audit import audit_of
from tenants.services.keys import push_revoked
from tenants.services.rules import constraint_becomes, name_checked, slug_checked

DEFAULT_PLAN = "starter"


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
