"""An organization's model versions and deployments."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from kernel.errors import NotFound
from serving.models import Deployment, ModelVersion


def version_list(organization_id: UUID) -> QuerySet[ModelVersion]:
    return ModelVersion.objects.filter(organization_id=organization_id).select_related(
        "project", "artifact__base", "base"
    )


def version_get(organization_id: UUID, version_id: UUID) -> ModelVersion:
    found = version_list(organization_id).filter(id=version_id).first()
    if found is None:
        raise NotFound("There is no model version by that id.", param="version")
    return found


def deployment_list(organization_id: UUID) -> QuerySet[Deployment]:
    return Deployment.objects.filter(organization_id=organization_id).select_related(
        "project", "version__project", "version__artifact__base", "version__base"
    )


def deployment_get(organization_id: UUID, deployment_id: UUID) -> Deployment:
    found = deployment_list(organization_id).filter(id=deployment_id).first()
    if found is None:
        raise NotFound("There is no deployment by that id.")
    return found
