"""Telling others that rows changed. Both are hints: polls and the sweep find everything anyway."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from celery import current_app
from django.db import connection, transaction
from django.db.models.functions import Now

from serving.models import Pool

CHANNEL = "tessera_changes"


def documents_changed() -> None:
    """The watcher builds its documents anew, as soon as this transaction is committed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])


def pool_changed(pool_id: UUID) -> None:
    """Somebody looks at this pool soon after this transaction is committed; the watcher builds
    anew.

    Whoever is reconciling the pool at this moment finds ``look_at`` changed and does it again.
    """
    Pool.objects.filter(id=pool_id).update(look_at=Now())
    documents_changed()
    transaction.on_commit(partial(_hint, "serving.tasks.pool", str(pool_id)), robust=True)


def artifact_arrived(artifact_id: UUID) -> None:
    """A worker checks this artifact soon after this transaction is committed."""
    transaction.on_commit(partial(_hint, "serving.tasks.artifact", str(artifact_id)), robust=True)


def _hint(task: str, identifier: str) -> None:
    current_app.send_task(task, [identifier])
