"""What workers are asked to do. A message says "look soon"; rows say what there is to do."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from django.conf import settings
from django.utils.module_loading import import_string

from serving import services
from serving.controller import reconcile
from serving.controller import sweep as sweeping


@shared_task(name="serving.tasks.pool")
def pool(pool_id: str) -> None:
    reconcile.pool_reconcile(UUID(pool_id), runtime_of=_runtime_of())


@shared_task(name="serving.tasks.artifact")
def artifact(artifact_id: str) -> None:
    services.artifact_validate(UUID(artifact_id))


@shared_task(name="serving.tasks.sweep")
def sweep() -> None:
    sweeping.sweep(_runtime_of())
    services.artifacts_sweep()


def _runtime_of() -> reconcile.RuntimeOf:
    found: reconcile.RuntimeOf = import_string(settings.TESSERA_RUNTIME_OF)
    return found
