"""What a pool should have, from its rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from serving.controller.spec import PROFILES, AdapterSpec, EngineSpec
from serving.models import EngineReplica, Placement, Pool, ReplicaState, Wanted

# Starting an engine costs the best part of a minute, an idle one some memory.
WARM_FOR = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedAdapter:
    """A placement as reconcile sees it."""

    placement_id: UUID
    deployment_id: UUID
    version_id: UUID
    adapter: AdapterSpec
    is_base: bool  # the base model as it is: ``adapter`` is its own name and digest
    version_label: str
    is_wanted_version: bool
    wanted: Wanted
    superseded_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRow:
    name: str
    number: int
    is_absent: bool
    reported_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRows:
    """A pool as its rows say it, read in one go."""

    pool_id: UUID
    cluster_id: UUID
    engine: str
    model_name: str
    model_folder: str
    model_digest: str
    context_tokens: int
    profile: str
    replica_count: int
    empty_since: datetime | None
    placed: tuple[PlacedAdapter, ...]
    replicas: tuple[ReplicaRow, ...]


def engine_spec(rows: PoolRows, *, now: datetime) -> EngineSpec:
    """An engine runs only where something is placed; an emptied pool stays warm for a while.

    Adapters of deployments that are being deleted are not in it, nor is the base model itself.
    """
    return EngineSpec(
        pool=str(rows.pool_id),
        engine=rows.engine,
        model_name=rows.model_name,
        model_folder=rows.model_folder,
        model_digest=rows.model_digest,
        context_tokens=rows.context_tokens,
        profile=PROFILES[rows.profile],
        adapters=tuple(
            placed.adapter
            for placed in rows.placed
            if placed.wanted is Wanted.RUNNING and not placed.is_base
        ),
        replicas=_wanted_replicas(rows, now),
    )


def pool_rows(pool_id: UUID) -> PoolRows | None:
    """Needs the platform's scope. Nothing where there is no such pool."""
    pool = Pool.objects.select_related("base").filter(id=pool_id).first()
    if pool is None:
        return None
    placements = (
        Placement.objects.filter(pool=pool)
        .select_related("version__artifact", "version__base", "deployment")
        .order_by("id")
    )
    return PoolRows(
        pool_id=pool.id,
        cluster_id=pool.cluster_id,
        engine="vllm",
        model_name=pool.base.served_name,
        model_folder=pool.base.folder,
        model_digest=pool.base.digest,
        context_tokens=pool.base.context_tokens,
        profile=pool.profile,
        replica_count=pool.replicas,
        empty_since=pool.empty_since,
        placed=tuple(_placed(placement) for placement in placements),
        replicas=tuple(
            ReplicaRow(
                name=replica.name,
                number=replica.number,
                is_absent=replica.state == ReplicaState.ABSENT,
                reported_at=replica.reported_at,
            )
            for replica in EngineReplica.objects.filter(pool=pool).order_by("number")
        ),
    )


def _wanted_replicas(rows: PoolRows, now: datetime) -> tuple[str, ...]:
    within = [replica for replica in rows.replicas if replica.number < rows.replica_count]
    if rows.placed:
        return tuple(replica.name for replica in within)
    if rows.empty_since is not None and now - rows.empty_since < WARM_FOR:
        return tuple(replica.name for replica in within if not replica.is_absent)
    return ()


def _placed(placement: Placement) -> PlacedAdapter:
    return PlacedAdapter(
        placement_id=placement.id,
        deployment_id=placement.deployment_id,
        version_id=placement.version_id,
        adapter=AdapterSpec(name=placement.adapter, digest=placement.version.digest),
        is_base=placement.version.is_base,
        version_label=str(placement.version),
        is_wanted_version=placement.version_id == placement.deployment.version_id,
        wanted=Wanted(placement.deployment.wanted),
        superseded_at=placement.superseded_at,
    )
