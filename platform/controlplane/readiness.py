"""Whether the demo's models answer now, rather than when they were last heard of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from controlplane.embedded.announcement import Demo, DemoOrganization
from serving.models import (
    Deployment,
    DeploymentStatus,
    ReplicaAdapter,
    ReplicaAdapterState,
    ReplicaState,
    Wanted,
)
from tenants.scope import platform_scope

STARTING = "It is being started."
HOPELESS_AFTER = timedelta(seconds=15)  # a failure may be of an engine that is being replaced


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """``trouble`` is why some model does not answer; ``is_settled``: waiting changes nothing."""

    deployed: int
    trouble: str
    is_settled: bool


def readiness(demo: Demo, *, since: datetime) -> Readiness:
    """What the rows say, where an engine has confirmed it after ``since``."""
    with platform_scope():
        deployments = [one for login in demo.organizations for one in _deployments(login)]
        waiting = [one for one in deployments if not _answers(one, since)]
    failed = [one for one in waiting if _is_hopeless(one, since)]
    return Readiness(
        deployed=len(deployments),
        trouble=_reason(failed[0] if failed else waiting[0]) if waiting else "",
        is_settled=bool(failed) or not waiting,
    )


def _deployments(login: DemoOrganization) -> Iterable[Deployment]:
    return Deployment.objects.filter(
        organization__slug=login.slug, slug=login.model, wanted=Wanted.RUNNING
    )


def _answers(deployment: Deployment, since: datetime) -> bool:
    """A status of ``ready`` may be left from the last run; what an engine just said is not."""
    names = [placement.adapter for placement in deployment.placements.all()]
    proven = ReplicaAdapter.objects.filter(
        name__in=names,
        state=ReplicaAdapterState.PROVEN,
        replica__state=ReplicaState.READY,
        replica__reported_at__gte=since,
    )
    return deployment.status == DeploymentStatus.READY and proven.exists()


def _is_hopeless(deployment: Deployment, since: datetime) -> bool:
    has_failed = deployment.status == DeploymentStatus.FAILED
    return has_failed and timezone.now() - max(since, deployment.changed_at) > HOPELESS_AFTER


def _reason(deployment: Deployment) -> str:
    is_old = deployment.status == DeploymentStatus.READY
    return STARTING if is_old else deployment.reason or STARTING
