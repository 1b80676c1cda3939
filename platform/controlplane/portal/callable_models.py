"""The model names that a key of an organization may call."""

from __future__ import annotations

from uuid import UUID

from serving import selectors
from serving.models import Deployment, DeploymentStatus, Wanted


def callable_models(organization_id: UUID, *, project_id: UUID | None = None) -> list[Deployment]:
    """Deployments that are not on their way out; those that answer already come first."""
    found = selectors.deployment_list(organization_id).filter(wanted=Wanted.RUNNING)
    if project_id is not None:
        found = found.filter(project_id=project_id)
    return sorted(found, key=lambda each: (each.status != DeploymentStatus.READY, each.slug))
