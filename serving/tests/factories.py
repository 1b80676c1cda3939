"""Rows that tests start from. Each opens the platform's scope itself."""

from __future__ import annotations

import hashlib
from uuid import UUID

from kernel.ids import ulid
from serving.artifacts.digest import artifact_digest
from serving.models import (
    Artifact,
    ArtifactFile,
    ArtifactKind,
    ArtifactStatus,
    BaseModel,
    Cluster,
    ClusterKind,
    Deployment,
    EngineReplica,
    ModelVersion,
    Placement,
    Pool,
    ReplicaAdapter,
    ReplicaState,
)
from tenants.models import Organization, Plan, Project
from tenants.scope import platform_scope


def organization(slug: str = "acme") -> Organization:
    with platform_scope():
        made = Organization.objects.create(
            name=slug.title(), slug=slug, plan=Plan.objects.get(code="starter")
        )
        Project.objects.create(organization=made, name="Default", slug="default")
    return made


def project(organization_id: UUID) -> Project:
    with platform_scope():
        return Project.objects.get(organization_id=organization_id)


def base(slug: str = "tiny") -> BaseModel:
    return BaseModel.objects.create(
        slug=slug,
        name=slug.title(),
        served_name=slug,
        folder=f"/models/{slug}",
        digest=hashlib.sha256(slug.encode()).hexdigest(),
        context_tokens=2048,
        default_output_tokens=256,
    )


def pool(base: BaseModel, *, replicas: int = 1, cell: str = "local") -> Pool:
    """A shared pool with its replicas, on the cell's own cluster."""
    cluster, _ = Cluster.objects.get_or_create(
        name=cell, defaults={"cell": cell, "region": "local", "kind": ClusterKind.LOCAL}
    )
    made = Pool.objects.create(cluster=cluster, base=base, profile="cpu", replicas=replicas)
    for number in range(replicas):
        EngineReplica.objects.create(pool=made, number=number, name=f"{base.slug}-{number}")
    return made


def artifact(
    owner: Organization, base: BaseModel, *, files: dict[str, bytes] | None = None
) -> Artifact:
    """An artifact that passed its checks."""
    contents = files or {"adapter_model.safetensors": ulid().encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    with platform_scope():
        made = Artifact.objects.create(
            organization=owner,
            project=project(owner.id),
            base=base,
            kind=ArtifactKind.ADAPTER,
            name="adapter",
            status=ArtifactStatus.READY,
            digest=artifact_digest(digests),
            size_bytes=sum(map(len, contents.values())),
        )
        for name, data in contents.items():
            ArtifactFile.objects.create(
                organization=owner,
                artifact=made,
                name=name,
                size_bytes=len(data),
                sha256=digests[name],
            )
    return made


def version(made: Artifact, *, name: str = "support", number: int = 1) -> ModelVersion:
    with platform_scope():
        return ModelVersion.objects.create(
            organization_id=made.organization_id,
            project_id=made.project_id,
            name=name,
            number=number,
            artifact=made,
        )


def deployment(
    served: ModelVersion, *, on: Pool | None = None, slug: str = "support"
) -> Deployment:
    with platform_scope():
        made = Deployment.objects.create(
            organization_id=served.organization_id,
            project_id=served.project_id,
            slug=slug,
            version=served,
        )
        if on is not None:
            Placement.objects.create(
                organization_id=served.organization_id, deployment=made, version=served, pool=on
            )
    return made


def deployed(slug: str = "acme", *, on: Pool) -> Deployment:
    """An organization of this name with one deployment, placed on a pool."""
    return deployment(version(artifact(organization(slug), on.base)), on=on)


def adapter_of(made: Deployment) -> tuple[str, str]:
    """Name and digest of the adapter of a deployment's wanted version."""
    with platform_scope():
        placement = Placement.objects.select_related("version__artifact").get(
            deployment=made, version_id=made.version_id
        )
        return placement.adapter, placement.version.digest


def proven_on(replica: EngineReplica, made: Deployment) -> None:
    """The replica is ready and the deployment's adapter proven on it."""
    if replica.state != ReplicaState.READY:
        replica.incarnation, replica.state = ulid(), ReplicaState.READY
        replica.address = f"unix:/run/{replica.incarnation}.sock"
        replica.save()
    name, digest = adapter_of(made)
    ReplicaAdapter.objects.create(
        replica=replica,
        incarnation=replica.incarnation,
        name=name,
        digest=digest,
        state="proven",
    )
