"""What there is: the runtime's items, and what agents said of the engines in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from serving.controller.runtime import ItemState, ObservedItem, Role
from serving.controller.spec import AdapterSpec
from serving.models import (
    EngineReplica,
    ReplicaAdapter,
    ReplicaAdapterState,
    ReplicaState,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAdapter:
    state: ReplicaAdapterState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedReplica:
    """One replica: its engine's item where there is one, and its agent's last report.

    An agent may be silent, so the report is what was true at ``reported_at``.
    """

    name: str
    engine: ObservedItem | None
    incarnation: str
    state: ReplicaState
    reason: str
    started_at: datetime | None
    reported_at: datetime | None
    adapters: Mapping[AdapterSpec, ObservedAdapter] = field(default_factory=dict)

    @property
    def is_running(self) -> bool:
        return self.engine is not None and self.engine.state is not ItemState.STOPPED

    @property
    def is_starting(self) -> bool:
        """The runtime's word counts: after a crash the last report is of the engine before."""
        starting = self.engine is not None and self.engine.state is ItemState.STARTING
        return starting or self.state in {ReplicaState.ABSENT, ReplicaState.STARTING}

    @property
    def answers(self) -> bool:
        """Whether what the report says of adapters can be relied on."""
        return self.is_running and not self.is_starting and self.state is ReplicaState.READY


def replicas_of_pool(
    pool_id: UUID,
    items: Iterable[ObservedItem],
    *,
    void: Mapping[str, datetime | None],
) -> tuple[ObservedReplica, ...]:
    """Every replica row of a pool, also one that should no longer be. Reads rows, asks nobody.

    ``void`` are replicas whose engine was started since their row was read, with the time of the
    report that was in it: that one is of the engine before.
    """
    engines = {item.owner: item for item in items if item.role is Role.ENGINE}
    adapters = _adapters(pool_id)
    return tuple(
        _replica(
            row,
            engines.get(row.name),
            {} if _is_void(row, void) else adapters.get(row.id, {}),
            ReplicaState.ABSENT if _is_void(row, void) else ReplicaState(row.state),
        )
        for row in EngineReplica.objects.filter(pool_id=pool_id).order_by("number")
    )


def _is_void(row: EngineReplica, void: Mapping[str, datetime | None]) -> bool:
    return row.name in void and void[row.name] == row.reported_at


def _adapters(pool_id: UUID) -> dict[UUID, dict[AdapterSpec, ObservedAdapter]]:
    found: dict[UUID, dict[AdapterSpec, ObservedAdapter]] = {}
    for row in ReplicaAdapter.objects.filter(replica__pool_id=pool_id):
        spec = AdapterSpec(name=row.name, digest=row.digest)
        observed = ObservedAdapter(state=ReplicaAdapterState(row.state), reason=row.reason)
        found.setdefault(row.replica_id, {})[spec] = observed
    return found


def _replica(
    row: EngineReplica,
    engine: ObservedItem | None,
    adapters: Mapping[AdapterSpec, ObservedAdapter],
    state: ReplicaState,
) -> ObservedReplica:
    return ObservedReplica(
        name=row.name,
        engine=engine,
        incarnation=row.incarnation,
        state=state,
        reason=row.reason,
        started_at=row.started_at,
        reported_at=row.reported_at,
        adapters=adapters,
    )
