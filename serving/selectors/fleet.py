"""What engines should hold and do hold, over all organizations: for agents, reconcile and
documents.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from django.db.models import F, QuerySet

from kernel.errors import NotFound
from serving.contracts import (
    CONTRACT_VERSION,
    AgentOrders,
    Endpoint,
    EndpointsDocument,
    ResidentAdapter,
    WantedAdapter,
)
from serving.models import (
    Cluster,
    EngineReplica,
    Placement,
    Pool,
    ReplicaAdapter,
    ReplicaAdapterState,
    ReplicaState,
    Wanted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedVersion:
    """One placement with what routing must know of it. ``proven`` means: routable on some engine
    now.
    """

    organization_id: UUID
    project_id: UUID
    deployment_id: UUID
    slug: str
    created_at: datetime
    version_id: UUID
    is_wanted: bool
    adapter: str
    digest: str
    pool_id: UUID
    proven: bool


def replica_get(name: str) -> EngineReplica:
    found = EngineReplica.objects.select_related("pool__base").filter(name=name).first()
    if found is None:
        raise NotFound("There is no replica by that name.")
    return found


def agent_orders(replica_name: str) -> AgentOrders:
    """The adapters that a replica should hold, all from artifacts that passed their checks.

    The base model itself needs no order: an engine is started with it.
    """
    replica = replica_get(replica_name)
    placements = placement_list_of_pool(replica.pool_id).prefetch_related(
        "version__artifact__files"
    )
    adapters = tuple(
        WantedAdapter(
            name=placement.adapter,
            digest=artifact.digest,
            files={file.name: file.sha256 for file in artifact.files.all()},
        )
        for placement in placements
        if (artifact := placement.version.artifact)
    )
    base = replica.pool.base.served_name
    return AgentOrders(
        version=CONTRACT_VERSION,
        etag=_etag(base, adapters),
        replica=replica.name,
        base=base,
        adapters=adapters,
    )


def ordered_file(replica_name: str, *, digest: str, name: str) -> str:
    """The SHA-256 of a file that this replica is ordered to hold; anything else is not found."""
    for adapter in agent_orders(replica_name).adapters:
        if adapter.digest == digest and name in adapter.files:
            return adapter.files[name]
    raise NotFound("This replica is not ordered to hold that file.")


def placement_list_of_pool(pool_id: UUID) -> QuerySet[Placement]:
    """What the engines of a pool should hold; nothing of deployments that are being deleted."""
    return (
        Placement.objects.filter(pool_id=pool_id, deployment__wanted=Wanted.RUNNING)
        .select_related("version__artifact", "version__base", "deployment")
        .order_by("id")
    )


def placed_versions(cell: str) -> list[PlacedVersion]:
    """Everything that routes of a cell may lead to."""
    proven = _proven(cell)
    placements = (
        Placement.objects.filter(pool__cluster__cell=cell, deployment__wanted=Wanted.RUNNING)
        .select_related("version__artifact", "version__base", "deployment")
        .order_by("id")
    )
    return [
        PlacedVersion(
            organization_id=placement.organization_id,
            project_id=placement.deployment.project_id,
            deployment_id=placement.deployment_id,
            slug=placement.deployment.slug,
            created_at=placement.deployment.created_at,
            version_id=placement.version_id,
            is_wanted=placement.version_id == placement.deployment.version_id,
            adapter=placement.adapter,
            digest=placement.version.digest,
            pool_id=placement.pool_id,
            proven=(placement.pool_id, placement.adapter, placement.version.digest) in proven,
        )
        for placement in placements
    ]


def pool_list_of_cell(cell: str) -> list[Pool]:
    return list(
        Pool.objects.filter(cluster__cell=cell).select_related("base", "cluster").order_by("id")
    )


def cluster_list_of_cell(cell: str) -> list[Cluster]:
    return list(Cluster.objects.filter(cell=cell).order_by("name"))


def endpoints_document(cluster: Cluster) -> EndpointsDocument:
    """The incarnations that answer now, each with its base model and the adapters proven on it."""
    replicas = (
        EngineReplica.objects.filter(pool__cluster=cluster, state=ReplicaState.READY)
        .select_related("pool__base")
        .order_by("name")
    )
    resident: dict[UUID, list[ResidentAdapter]] = {}
    for adapter in _proven_adapters().filter(replica__pool__cluster=cluster).order_by("name"):
        resident.setdefault(adapter.replica_id, []).append(
            ResidentAdapter(name=adapter.name, digest=adapter.digest)
        )
    return EndpointsDocument(
        cluster=cluster.name,
        endpoints=tuple(
            Endpoint(
                pool=str(replica.pool_id),
                replica=replica.name,
                incarnation=replica.incarnation,
                address=replica.address,
                slots=replica.pool.slots_per_replica,
                adapters=(_resident_base(replica), *resident.get(replica.id, ())),
            )
            for replica in replicas
        ),
    )


def _resident_base(replica: EngineReplica) -> ResidentAdapter:
    base = replica.pool.base
    return ResidentAdapter(name=base.served_name, digest=base.digest)


def _proven(cell: str) -> set[tuple[UUID, str, str]]:
    """Pool, name and digest of what answers: adapters, and the base of each ready engine."""
    adapters = _proven_adapters().filter(replica__pool__cluster__cell=cell)
    ready = EngineReplica.objects.filter(pool__cluster__cell=cell, state=ReplicaState.READY)
    return {
        *adapters.values_list("replica__pool_id", "name", "digest"),
        *ready.values_list("pool_id", "pool__base__served_name", "pool__base__digest"),
    }


def _proven_adapters() -> QuerySet[ReplicaAdapter]:
    return ReplicaAdapter.objects.filter(
        state=ReplicaAdapterState.PROVEN,
        replica__state=ReplicaState.READY,
        incarnation=F("replica__incarnation"),
    )


def _etag(base: str, adapters: tuple[WantedAdapter, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode([base, adapters], order="sorted")).hexdigest()[:32]
