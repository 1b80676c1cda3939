"""Which engines a deployment's version goes to, and the rows for them."""

from __future__ import annotations

from django.conf import settings

from kernel.ids import short_name
from serving.changes import pool_changed
from serving.controller.spec import CPU
from serving.models import (
    BaseModel,
    Cluster,
    ClusterKind,
    Deployment,
    EngineReplica,
    ModelVersion,
    Placement,
    Pool,
    PoolMode,
)

LOCAL_REGION = "local"


def placement_ensure(deployment: Deployment, version: ModelVersion) -> Placement:
    """Place a version on the shared pool of its base. Within the caller's transaction and scope.

    Placing the same again takes back that it was superseded.
    """
    pool = shared_pool_ensure(version.made_for)
    placement, _ = Placement.objects.update_or_create(
        organization_id=deployment.organization_id,
        deployment=deployment,
        version=version,
        pool=pool,
        defaults={"superseded_at": None},
    )
    pool_changed(pool.id)
    return placement


def shared_pool_ensure(base: BaseModel) -> Pool:
    """The shared pool of a base in this installation's cell, with its replicas, made when first
    needed.
    """
    pool, _ = Pool.objects.get_or_create(
        cluster=local_cluster_ensure(),
        base=base,
        profile=CPU.name,
        mode=PoolMode.SHARED,
        defaults={"slots_per_replica": CPU.concurrency},
    )
    for number in range(pool.replicas):
        replica_ensure(pool, number)
    return pool


def replica_ensure(pool: Pool, number: int) -> EngineReplica:
    """The name says whose it is to a person, and is unique by the pool's id."""
    name = f"{pool.base.slug}-{short_name(pool.id)[-7:]}-{number}"
    replica, _ = EngineReplica.objects.get_or_create(
        pool=pool, number=number, defaults={"name": name}
    )
    return replica


def local_cluster_ensure() -> Cluster:
    """One machine is a cluster with the name of its cell."""
    cluster, _ = Cluster.objects.get_or_create(
        name=settings.TESSERA_CELL,
        defaults={
            "cell": settings.TESSERA_CELL,
            "region": LOCAL_REGION,
            "kind": ClusterKind.LOCAL,
        },
    )
    return cluster
