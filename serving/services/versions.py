"""Model versions: an artifact, or a base model as it is, under a name and a number."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Max

from serving import selectors
from serving.errors import ArtifactNotReady, VersionInUse
from serving.models import ArtifactStatus, Deployment, ModelVersion, Placement
from serving.services.locks import organization_lock
from tenants.access import Caller, Permission
from tenants.scope import organization_scope
from tenants.selectors import project_default, project_get
from tenants.services import audit_record
from tenants.services.rules import slug_checked


def version_create(
    organization_id: UUID, *, caller: Caller, name: str, artifact_id: UUID
) -> ModelVersion:
    """The next version of a model: the first one makes the model."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    slug_checked(name)
    with organization_scope(organization_id):
        organization_lock(organization_id)
        artifact = selectors.artifact_get(organization_id, artifact_id)
        if artifact.status != ArtifactStatus.READY:
            raise ArtifactNotReady(param="artifact")
        version = ModelVersion.objects.create(
            organization_id=organization_id,
            project_id=artifact.project_id,
            name=name,
            number=_next_number(organization_id, name),
            artifact=artifact,
        )
        _audit(caller, "model_version.create", version)
    return version


def base_version_create(
    organization_id: UUID, *, caller: Caller, name: str, base: str, project: str = ""
) -> ModelVersion:
    """A base model of the catalogue, to be served as it is. Asking twice gives the same version."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    slug_checked(name)
    with organization_scope(organization_id):
        organization_lock(organization_id)
        found = selectors.base_model_get(base)
        same = selectors.version_list(organization_id).filter(name=name, base=found).first()
        if same is not None:
            return same
        owner = (
            project_get(organization_id, project) if project else project_default(organization_id)
        )
        version = ModelVersion.objects.create(
            organization_id=organization_id,
            project=owner,
            name=name,
            number=_next_number(organization_id, name),
            base=found,
        )
        _audit(caller, "model_version.create", version)
    return version


def version_delete(organization_id: UUID, version_id: UUID, *, caller: Caller) -> None:
    """Only while nothing serves it; its artifact stays."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        organization_lock(organization_id)
        version = selectors.version_get(organization_id, version_id)
        serving = Deployment.objects.filter(version=version).exists()
        if serving or Placement.objects.filter(version=version).exists():
            raise VersionInUse
        _audit(caller, "model_version.delete", version)
        version.delete()


def _next_number(organization_id: UUID, name: str) -> int:
    """The organization is locked: two versions of a model come one after the other."""
    same_name = selectors.version_list(organization_id).filter(name=name)
    return (same_name.aggregate(last=Max("number"))["last"] or 0) + 1


def _audit(caller: Caller, verb: str, version: ModelVersion) -> None:
    audit_record(
        caller,
        verb,
        target_type="modelversion",
        target_id=version.id,
        organization_id=version.organization_id,
        detail={"name": version.name, "number": version.number},
    )
