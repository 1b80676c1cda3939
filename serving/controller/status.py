"""What to tell a tenant, derived from what was observed, never from what was hoped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from serving.controller.desired import PlacedAdapter
from serving.controller.observed import ObservedReplica
from serving.controller.runtime import ItemState
from serving.models import DeploymentStatus, ReplicaAdapterState, ReplicaState, Wanted

USUAL_START = "45-60 s"
SILENT_AFTER = timedelta(seconds=45)
HOPELESS_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Status:
    status: DeploymentStatus
    reason: str = ""


NO_EFFECT = Status(
    DeploymentStatus.FAILED,
    "The adapter is loaded but does not change the base model's answers. "
    "Check that it was trained, and for this base model; then upload it again.",
)
FETCHING = Status(DeploymentStatus.LOADING, "The engine is fetching the adapter.")
LOADING = Status(DeploymentStatus.LOADING, "The engine is loading the adapter.")
NOT_HEARD_OF = Status(DeploymentStatus.LOADING, "The engine has not begun to load the adapter yet.")
WAITING = Status(DeploymentStatus.PENDING, "Waiting for an engine to start.")

# What to tell where replicas differ: the first that any of them says.
_BEST_FIRST = (
    DeploymentStatus.READY,
    DeploymentStatus.LOADING,
    DeploymentStatus.FAILED,
    DeploymentStatus.PENDING,
)


def deployment_status(
    placed: Sequence[PlacedAdapter],
    replicas: Sequence[ObservedReplica],
    *,
    trouble: str,
    now: datetime,
) -> Status:
    """The status of one deployment. ``placed`` are its placements, ``trouble`` is why reconcile
    could not do its work, where it could not.
    """
    if placed[0].wanted is Wanted.DELETED:
        return Status(DeploymentStatus.DELETING, _deleting(placed, replicas))
    wanted = next((one for one in placed if one.is_wanted_version), placed[-1])
    status = _of_version(wanted, replicas, now)
    if status.status is DeploymentStatus.READY:
        return status
    if trouble and status.status is DeploymentStatus.PENDING:
        status = Status(DeploymentStatus.FAILED, trouble)
    if serving := is_proven_anywhere(placed, replicas):
        sentence = f"{serving.version_label} goes on answering. {status.reason}"
        return Status(status.status, sentence)
    return status


def is_proven_anywhere(
    placed: Iterable[PlacedAdapter], replicas: Iterable[ObservedReplica]
) -> PlacedAdapter | None:
    """The youngest of these placements whose adapter answers on some replica."""
    answering = [replica for replica in replicas if replica.answers]
    for one in sorted(placed, key=lambda one: one.placement_id, reverse=True):
        if any(_adapter_state(one, replica) is ReplicaAdapterState.PROVEN for replica in answering):
            return one
    return None


def is_held_anywhere(placed: PlacedAdapter, replicas: Iterable[ObservedReplica]) -> bool:
    """Whether an engine that runs may still hold this adapter; the base model stays anyway."""
    return not placed.is_base and any(
        replica.is_running and placed.adapter in replica.adapters for replica in replicas
    )


def _of_version(
    placed: PlacedAdapter, replicas: Sequence[ObservedReplica], now: datetime
) -> Status:
    said = [_on_replica(placed, replica, now) for replica in replicas] or [WAITING]
    best = min(said, key=lambda status: _BEST_FIRST.index(status.status))
    ready = sum(status.status is DeploymentStatus.READY for status in said)
    if 0 < ready < len(said) and not best.reason:
        return Status(best.status, f"Answers on {ready} of {len(said)} engines so far.")
    return best


def _on_replica(placed: PlacedAdapter, replica: ObservedReplica, now: datetime) -> Status:
    if replica.engine is None:
        return WAITING
    if replica.engine.state is ItemState.STOPPED:
        return _stopped(replica)
    if replica.is_starting:
        return _starting(replica, now)
    if replica.state is not ReplicaState.READY:
        reason = replica.reason or "The engine does not answer and is being started again."
        return Status(DeploymentStatus.LOADING, reason)
    if placed.is_base:
        return Status(DeploymentStatus.READY, _silence(replica, now))
    return _of_adapter(placed, replica, now)


def _of_adapter(placed: PlacedAdapter, replica: ObservedReplica, now: datetime) -> Status:
    adapter = replica.adapters.get(placed.adapter)
    if adapter is None:
        return NOT_HEARD_OF
    match adapter.state:
        case ReplicaAdapterState.PROVEN:
            return Status(DeploymentStatus.READY, _silence(replica, now))
        case ReplicaAdapterState.NO_EFFECT:
            return NO_EFFECT
        case ReplicaAdapterState.FAILED:
            return Status(
                DeploymentStatus.FAILED,
                adapter.reason or "The engine could not load the adapter.",
            )
        case ReplicaAdapterState.FETCHING:
            return Status(DeploymentStatus.LOADING, adapter.reason) if adapter.reason else FETCHING
        case ReplicaAdapterState.LOADING:
            return Status(DeploymentStatus.LOADING, adapter.reason) if adapter.reason else LOADING


def _starting(replica: ObservedReplica, now: datetime) -> Status:
    sentence = f"The engine is starting (usually {USUAL_START})."
    if replica.started_at is not None and replica.state is ReplicaState.STARTING:
        seconds = max(0, round((now - replica.started_at).total_seconds()))
        sentence = f"The engine is starting ({seconds} s so far; usually {USUAL_START})."
    return Status(DeploymentStatus.LOADING, sentence)


def _stopped(replica: ObservedReplica) -> Status:
    assert replica.engine is not None
    detail = replica.engine.detail or "The engine stopped."
    if replica.engine.failures >= HOPELESS_FAILURES:
        return Status(
            DeploymentStatus.FAILED,
            f"{detail} It has ended {replica.engine.failures} times in a row;"
            " an operator has to look.",
        )
    return Status(DeploymentStatus.LOADING, f"{detail} It is being started again.")


def _silence(replica: ObservedReplica, now: datetime) -> str:
    if replica.reported_at is None or now - replica.reported_at < SILENT_AFTER:
        return ""
    seconds = round((now - replica.reported_at).total_seconds())
    return f"Nothing was heard of the engine for {seconds} s; this may be out of date."


def _deleting(placed: Iterable[PlacedAdapter], replicas: Sequence[ObservedReplica]) -> str:
    if any(is_held_anywhere(one, replicas) for one in placed):
        return "No longer callable. Engines are letting go of the adapter."
    return "No longer callable. What is left of it is being removed."


def _adapter_state(placed: PlacedAdapter, replica: ObservedReplica) -> ReplicaAdapterState | None:
    if placed.is_base:
        return ReplicaAdapterState.PROVEN  # an engine that answers has its base model
    adapter = replica.adapters.get(placed.adapter)
    return adapter.state if adapter else None
