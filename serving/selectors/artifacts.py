"""The catalogue of base models, which everybody sees, and an organization's uploads."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet, Sum

from kernel.errors import NotFound
from serving.models import Artifact, ArtifactStatus, BaseModel


def base_model_list() -> QuerySet[BaseModel]:
    """Base models that are offered: the same for everybody."""
    return BaseModel.objects.filter(enabled=True)


def base_model_get(slug: str) -> BaseModel:
    found = base_model_list().filter(slug=slug).first()
    if found is None:
        offered = ", ".join(base.slug for base in base_model_list()) or "none yet"
        raise NotFound(
            f"There is no base model {ascii(slug)[:60]}. Offered: {offered}.", param="base"
        )
    return found


def artifact_list(organization_id: UUID) -> QuerySet[Artifact]:
    return (
        Artifact.objects.filter(organization_id=organization_id)
        .select_related("base", "project")
        .prefetch_related("files__parts")
    )


def artifact_get(organization_id: UUID, artifact_id: UUID) -> Artifact:
    found = artifact_list(organization_id).filter(id=artifact_id).first()
    if found is None:
        raise NotFound("There is no upload by that id.")
    return found


def storage_used_bytes(organization_id: UUID) -> int:
    """What counts against the quota: everything declared, but for what was refused."""
    counted = Artifact.objects.filter(organization_id=organization_id).exclude(
        status=ArtifactStatus.REFUSED
    )
    return counted.aggregate(total=Sum("size_bytes"))["total"] or 0
