"""Where rooms meet what they do not know: which runtime a cluster has, and with which settings."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from django.conf import settings

from controlplane.engine.environment import engine_python
from kernel.errors import Unavailable
from serving.controller.local import LocalRuntime, LocalSettings
from serving.controller.runtime import Runtime
from serving.models import Cluster, ClusterKind


def runtime_of(cluster_id: UUID) -> Runtime:
    """The runtime of a cluster. Refuses a kind that this installation cannot reach."""
    cluster = Cluster.objects.get(id=cluster_id)
    if cluster.kind == ClusterKind.LOCAL:
        return local_runtime()
    raise Unavailable(f"Clusters of kind {cluster.get_kind_display()} cannot be reached from here.")


def local_runtime() -> LocalRuntime:
    return LocalRuntime(
        LocalSettings(
            supervisor_socket=Path(settings.TESSERA_SUPERVISOR_SOCKET),
            home=Path(settings.TESSERA_HOME),
            run=Path(settings.TESSERA_RUN),
            control_url=settings.TESSERA_CONTROL_URL,
            engine_secret=bytes.fromhex(settings.TESSERA_ENGINE_KEY),
            engine_python=engine_python(),
            simulator=settings.TESSERA_SIMULATOR,
        )
    )
