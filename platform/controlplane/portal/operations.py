"""What operators see first: whatever needs a person, over every organization."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from django.conf import settings
from django.contrib import admin
from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from billing.models import UsageQuarantine
from controlplane.portal import wording
from serving.journal.health import health_read
from serving.models import (
    Artifact,
    ArtifactStatus,
    Deployment,
    DeploymentStatus,
    EngineReplica,
    ReplicaState,
)

REFUSED_WITHIN = timedelta(days=1)
SHOWN = 8
_STALE_SECONDS = 30

Level = Literal["good", "look"]


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure, what it means, and whether somebody should look; ``changelist`` says where."""

    label: str
    figure: str
    text: str
    level: Level
    changelist: str = ""


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Unfold's hook for the index page; it runs in the admin's scope, which sees everything."""
    now = timezone.now()
    waiting = Deployment.objects.exclude(status=DeploymentStatus.READY).select_related(
        "organization"
    )
    refused = Artifact.objects.filter(
        status=ArtifactStatus.REFUSED, created_at__gte=now - REFUSED_WITHIN
    ).select_related("organization")
    return context | {
        "title": _("Operations"),
        "tiles": [
            _deployments(),
            _replicas(),
            _uploads(refused.count()),
            _journal(now),
            _quarantine(),
        ],
        "waiting": waiting.order_by("changed_at")[:SHOWN],
        "refused": refused.order_by("-id")[:SHOWN],
    }


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Unfold's hook for the sidebar: what is so right now, then every table by its room."""
    now = [
        (_("Overview"), "home", "admin:index"),
        (_("Admission"), "speed", "admin:admission"),
        (_("Gateways"), "lan", "admin:gateways"),
    ]
    rooms = [
        {
            "title": room["name"],
            "items": [
                {"title": table["name"], "link": table["admin_url"]}
                for table in room["models"]
                if table["admin_url"]
            ],
        }
        for room in admin.site.get_app_list(request)
    ]
    shown = [{"title": title, "icon": icon, "link": reverse(name)} for title, icon, name in now]
    return [{"title": _("Right now"), "items": shown}, *rooms]


def _deployments() -> Tile:
    count = Deployment.objects.aggregate(
        all=Count("id"), ready=Count("id", filter=Q(status=DeploymentStatus.READY))
    )
    return _tile(
        _("Deployments ready"),
        f"{count['ready']} / {count['all']}",
        _("proven on an engine"),
        good=count["ready"] == count["all"],
        changelist="admin:serving_deployment_changelist",
    )


def _replicas() -> Tile:
    count = EngineReplica.objects.aggregate(
        all=Count("id"), ready=Count("id", filter=Q(state=ReplicaState.READY))
    )
    return _tile(
        _("Engines ready"),
        f"{count['ready']} / {count['all']}",
        _("by their agents' last reports"),
        good=count["ready"] == count["all"],
        changelist="admin:serving_enginereplica_changelist",
    )


def _uploads(refused: int) -> Tile:
    return _tile(
        _("Uploads refused"),
        str(refused),
        _("in the last 24 hours"),
        good=not refused,
        changelist="admin:serving_artifact_changelist",
    )


def _journal(now: datetime) -> Tile:
    """How far usage in the database is behind, as this machine's shipper says it."""
    label = _("Journal behind by")
    health = health_read(settings.TESSERA_HOME / "journal")
    if health is None:
        return _tile(label, _("unknown"), _("no shipper runs on this machine"), good=True)
    silent_seconds = now.timestamp() - health.at
    if silent_seconds > _STALE_SECONDS:
        text = _("the shipper has said nothing for %(seconds)d s") % {"seconds": silent_seconds}
        return _tile(label, "?", text, good=False)
    text = health.database_error or _("%(size)s not in the database yet") % {
        "size": wording.file_size(health.unshipped_bytes)
    }
    behind = health.oldest_unshipped_seconds
    return _tile(
        label, f"{behind:.1f} s", text, good=behind < _STALE_SECONDS and not health.database_error
    )


def _quarantine() -> Tile:
    count = UsageQuarantine.objects.count()
    return _tile(
        _("Usage in quarantine"),
        str(count),
        _("facts that need a person"),
        good=not count,
        changelist="admin:billing_usagequarantine_changelist",
    )


def _tile(label: str, figure: str, text: str, *, good: bool, changelist: str = "") -> Tile:
    return Tile(label, figure, text, "good" if good else "look", changelist)
