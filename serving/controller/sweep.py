"""The truth behind the hints: everything that is due is found, whatever messages were lost."""

from __future__ import annotations

import logging
from uuid import UUID

from django.db.models.functions import Now

from kernel.errors import Unavailable
from serving.controller.apply import apply_plan
from serving.controller.plan import make_plan
from serving.controller.reconcile import RuntimeOf, pool_reconcile
from serving.models import Cluster, EngineReplica, Pool
from tenants.scope import platform_scope

log = logging.getLogger(__name__)


def sweep(runtime_of: RuntimeOf) -> None:
    """Reconcile every pool that is due, then remove what belongs to no replica that we know."""
    for pool_id in pools_due():
        pool_reconcile(pool_id, runtime_of=runtime_of)
    for cluster_id in _cluster_ids():
        try:
            orphans_remove(cluster_id, runtime_of)
        except Unavailable as error:
            log.warning("cluster %s: %s", cluster_id, error.message)


def pools_due() -> list[UUID]:
    with platform_scope():
        due = Pool.objects.filter(look_at__lte=Now()).order_by("look_at")
        return list(due.values_list("id", flat=True))


def orphans_remove(cluster_id: UUID, runtime_of: RuntimeOf) -> None:
    """Items whose replica has no row: the database was restored or replaced beneath them.

    Items are read before rows, so that a replica which is being made is never taken for an orphan.
    """
    runtime = runtime_of(cluster_id)
    items = runtime.observe()
    with platform_scope():
        known = set(EngineReplica.objects.values_list("name", flat=True))
    orphans = [item for item in items if item.owner not in known]
    apply_plan(make_plan((), orphans, runtime.difference), runtime)


def _cluster_ids() -> list[UUID]:
    with platform_scope():
        return list(Cluster.objects.values_list("id", flat=True))
