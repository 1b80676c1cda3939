"""What a reconcile found out, and the rows that say so afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from serving.changes import documents_changed
from serving.controller.desired import PlacedAdapter, PoolRows
from serving.controller.observed import ObservedReplica
from serving.controller.status import (
    Status,
    deployment_status,
    is_held_anywhere,
    is_proven_anywhere,
)
from serving.models import (
    Deployment,
    DeploymentStatus,
    EngineReplica,
    Placement,
    Pool,
    ReplicaAdapter,
    ReplicaState,
    Wanted,
)

# Gateways have heard of the new route long before, and what was begun on the old one goes on.
SUPERSEDED_GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """``replicas`` is how things are after the plan was carried out, and ``renewed`` are those
    whose engine it started. With ``trouble`` the runtime was not seen: nothing is concluded from
    it.
    """

    rows: PoolRows
    replicas: tuple[ObservedReplica, ...]
    renewed: frozenset[str] = frozenset()
    trouble: str = ""

    def deployments(self) -> Iterable[tuple[PlacedAdapter, ...]]:
        """The placements of each deployment, in the order in which their rows are locked."""
        ordered = sorted(self.rows.placed, key=lambda one: (one.deployment_id, one.placement_id))
        for _, placed in groupby(ordered, key=lambda one: one.deployment_id):
            yield tuple(placed)

    def is_settled(self, now: datetime) -> bool:
        """Nothing waits for an engine, a proof, or a grace period."""
        return all(
            self.status_of(placed, now).status in {DeploymentStatus.READY, DeploymentStatus.FAILED}
            and len(placed) == 1
            for placed in self.deployments()
        )

    def status_of(self, placed: tuple[PlacedAdapter, ...], now: datetime) -> Status:
        wanted = {row.name for row in self.rows.replicas if row.number < self.rows.replica_count}
        replicas = [replica for replica in self.replicas if replica.name in wanted]
        return deployment_status(placed, replicas, trouble=self.trouble, now=now)


def findings_write(findings: Findings, *, now: datetime) -> None:
    """Statuses, ends of placements and deployments, engines that are gone. Within a transaction."""
    for placed in findings.deployments():
        if placed[0].wanted is Wanted.DELETED:
            _deployment_end(placed, findings, now)
        else:
            _status_write(placed, findings.status_of(placed, now), now)
            _superseded_end(placed, findings, now)
    if not findings.trouble:
        _absent_replicas_write(findings)
        _surplus_replicas_end(findings)
    _emptiness_write(findings.rows, now)


def _status_write(placed: tuple[PlacedAdapter, ...], status: Status, now: datetime) -> None:
    """Only where the row still wants what was looked at, and only what differs."""
    rows = Deployment.objects.filter(id=placed[0].deployment_id, wanted=placed[0].wanted)
    if wanted := next((one for one in placed if one.is_wanted_version), None):
        rows = rows.filter(version_id=wanted.version_id)
    rows.exclude(status=status.status).update(status=status.status, changed_at=now)
    rows.exclude(reason=status.reason).update(reason=status.reason)


def _deployment_end(placed: tuple[PlacedAdapter, ...], findings: Findings, now: datetime) -> None:
    """Gone once no engine holds it; until then it is told what it waits for."""
    if findings.trouble or any(is_held_anywhere(one, findings.replicas) for one in placed):
        _status_write(placed, findings.status_of(placed, now), now)
        return
    Placement.objects.filter(id__in=[one.placement_id for one in placed]).delete()
    rest = Deployment.objects.filter(id=placed[0].deployment_id, wanted=Wanted.DELETED)
    rest.filter(placements=None).delete()
    documents_changed()


def _superseded_end(placed: tuple[PlacedAdapter, ...], findings: Findings, now: datetime) -> None:
    """Once the wanted version answers, earlier ones go after a grace; before that they stay."""
    wanted = [one for one in placed if one.is_wanted_version]
    if not wanted or is_proven_anywhere(wanted, findings.replicas) is None:
        return
    for one in placed:
        if one.is_wanted_version:
            continue
        row = Placement.objects.filter(id=one.placement_id)
        if one.superseded_at is None:
            row.update(superseded_at=now)
        elif now - one.superseded_at >= SUPERSEDED_GRACE:
            row.delete()
            documents_changed()


def _absent_replicas_write(findings: Findings) -> None:
    """A replica without an engine, or with one that was just started, has nothing resident.

    Only where no agent has reported since the rows were read: what it said is of the new engine.
    """
    without = {replica.name for replica in findings.replicas if replica.engine is None}
    for row in findings.rows.replicas:
        if row.is_absent or row.name not in without | findings.renewed:
            continue
        replica = EngineReplica.objects.filter(name=row.name, reported_at=row.reported_at)
        if replica.update(state=ReplicaState.ABSENT, reason="", address=""):
            ReplicaAdapter.objects.filter(replica__name=row.name).delete()
            documents_changed()


def _surplus_replicas_end(findings: Findings) -> None:
    """Rows of replicas that a smaller pool no longer has, once nothing runs for them."""
    without = {replica.name for replica in findings.replicas if replica.engine is None}
    for row in findings.rows.replicas:
        if row.number >= findings.rows.replica_count and row.name in without:
            EngineReplica.objects.filter(name=row.name).delete()


def _emptiness_write(rows: PoolRows, now: datetime) -> None:
    pool = Pool.objects.filter(id=rows.pool_id)
    if Placement.objects.filter(pool_id=rows.pool_id).exists():
        pool.exclude(empty_since=None).update(empty_since=None)
    else:
        pool.filter(empty_since=None).update(empty_since=now)
