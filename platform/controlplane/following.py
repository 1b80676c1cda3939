"""Following what we own in a cluster: a change there becomes a hint to look at its pool."""

from __future__ import annotations

import logging
from threading import Event

from django.db import OperationalError, connection

from serving.changes import pool_changed
from serving.controller.runtime import Runtime
from serving.models import EngineReplica
from tenants.scope import platform_scope

log = logging.getLogger(__name__)


def follow(runtime: Runtime, stop: Event) -> None:
    """Hint at the pool of every item that changes, until ``stop``.

    What is missed, because the database is away or nobody follows, the sweep finds.
    """
    try:
        for replica in runtime.watch(stop):
            _hint(replica)
    finally:
        connection.close()


def _hint(replica: str) -> None:
    try:
        with platform_scope():
            for pool_id in EngineReplica.objects.filter(name=replica).values_list("pool_id"):
                pool_changed(*pool_id)
    except OperationalError as error:
        log.warning("no hint about %s, the sweep will look: %s", replica, error)
        connection.close()
