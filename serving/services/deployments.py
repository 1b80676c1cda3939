"""Deployments: made, led to another version, deleted. What is wanted is written here; whether it is
so is found out by reconcile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from serving import selectors
from serving.changes import documents_changed, pool_changed
from serving.errors import DeploymentGoing, SlugTaken
from serving.models import Deployment, DeploymentStatus, Placement, Wanted
from serving.services.locks import organization_lock
from serving.services.placement import placement_ensure
from tenants.access import Caller, Permission
from tenants.scope import organization_scope
from tenants.services import audit_record
from tenants.services.rules import constraint_becomes, slug_checked


def deployment_create(
    organization_id: UUID, *, caller: Caller, slug: str, version_id: UUID
) -> Deployment:
    """Serve a version under a name; it answers once an engine has proven it."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    slug_checked(slug)
    taken = SlugTaken(
        f"Your organization has a deployment {slug!r} already. Choose another name.", param="slug"
    )
    with (
        constraint_becomes(deployment_slug_unique_in_organization=taken),
        organization_scope(organization_id),
    ):
        organization_lock(organization_id)
        version = selectors.version_get(organization_id, version_id)
        deployment = Deployment.objects.create(
            organization_id=organization_id,
            project_id=version.project_id,
            slug=slug,
            version=version,
        )
        placement_ensure(deployment, version)
        _audit(caller, "deployment.create", deployment, {"slug": slug, "version": str(version)})
    return deployment


def deployment_version_change(
    organization_id: UUID, deployment_id: UUID, *, caller: Caller, version_id: UUID
) -> Deployment:
    """Lead a name to another version. The one before answers until the new one is proven."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        deployment = _for_change(organization_id, deployment_id)
        if deployment.wanted == Wanted.DELETED:
            raise DeploymentGoing
        version = selectors.version_get(organization_id, version_id)
        before = deployment.version
        if version == before:
            return deployment
        deployment.version = version
        deployment.status, deployment.reason = DeploymentStatus.LOADING, ""
        deployment.save(update_fields=["version", "status", "reason"])
        placement_ensure(deployment, version)
        _audit(
            caller, "deployment.version", deployment, {"before": str(before), "after": str(version)}
        )
    return deployment


def deployment_delete(organization_id: UUID, deployment_id: UUID, *, caller: Caller) -> Deployment:
    """Stop answering at once; the row goes once no engine holds the adapter. Twice is as once."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        deployment = _for_change(organization_id, deployment_id)
        if deployment.wanted == Wanted.DELETED:
            return deployment
        deployment.wanted = Wanted.DELETED
        deployment.status, deployment.reason = DeploymentStatus.DELETING, ""
        deployment.save(update_fields=["wanted", "status", "reason"])
        for placement in Placement.objects.filter(deployment=deployment).order_by("pool_id"):
            pool_changed(placement.pool_id)
        documents_changed()
        _audit(caller, "deployment.delete", deployment, {"slug": deployment.slug})
    return deployment


def _for_change(organization_id: UUID, deployment_id: UUID) -> Deployment:
    organization_lock(organization_id)
    selectors.deployment_get(organization_id, deployment_id)
    return (
        Deployment.objects.select_for_update(of=("self",))
        .select_related("version__artifact__base", "version__base", "project")
        .get(organization_id=organization_id, id=deployment_id)
    )


def _audit(caller: Caller, verb: str, deployment: Deployment, detail: Mapping[str, Any]) -> None:
    audit_record(
        caller,
        verb,
        target_type="deployment",
        target_id=deployment.id,
        organization_id=deployment.organization_id,
        detail=detail,
    )
