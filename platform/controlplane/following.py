"""Following what we own in a cluster: a change there becomes a hint to look at its pool."""

from __future__ import annotations

import logging
from threading import Event

from django.db import OperationalError, connection
from django.db.models import QuerySet

from serving.changes import pool_changed
from serving.controller.runtime import Runtime
from serving.models import Pool
from tenants.scope import platform_scope

log = logging.getLogger(__name__)


def follow(runtime: Runtime, stop: Event) -> None:
    """Hint at the pool of every item that changes, until ``stop``, and at every pool to begin with:
    nobody knows what changed while nobody followed, and after a start all engines are to be
    started.

    What is missed, because the database is away, the sweep finds.
    """
    try:
        _hint(Pool.objects.all())
        for replica in runtime.watch(stop):
            _hint(Pool.objects.filter(engine_replicas__name=replica))
    finally:
        connection.close()


def _hint(pools: QuerySet[Pool]) -> None:
    try:
        with platform_scope():
            for pool in pools:
                pool_changed(pool.id)
    except OperationalError as error:
        log.warning("no hint, the sweep will look: %s", error)
        connection.close()
