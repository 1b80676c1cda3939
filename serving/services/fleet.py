"""What operators do with pools and engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from kernel.errors import Invalid, NotFound
from serving.changes import pool_changed
from serving.models import Pool
from serving.services.placement import replica_ensure
from tenants.access import Caller, Permission
from tenants.scope import platform_scope
from tenants.services import audit_record

MOST_REPLICAS = 64


def pool_resize(pool_id: UUID, *, caller: Caller, replicas: int) -> Pool:
    """Have so many engines. With fewer, the last ones end; what they held is on the others."""
    caller.require(Permission.OPERATE)
    if not 0 <= replicas <= MOST_REPLICAS:
        raise Invalid(
            f"A pool has 0 to {MOST_REPLICAS} engines.", param="replicas", rule="pool_replicas"
        )
    with platform_scope():
        pool = _for_change(pool_id)
        before, pool.replicas = pool.replicas, replicas
        pool.save(update_fields=["replicas"])
        for number in range(replicas):
            replica_ensure(pool, number)
        pool_changed(pool.id)
        _audit(caller, "pool.resize", pool, {"before": before, "after": replicas})
    return pool


def pool_look(pool_id: UUID, *, caller: Caller) -> None:
    """Compare a pool with what runs now, instead of when the sweep next would."""
    caller.require(Permission.OPERATE)
    with platform_scope():
        pool = _for_change(pool_id)
        pool_changed(pool.id)
        _audit(caller, "pool.look", pool, {})


def _for_change(pool_id: UUID) -> Pool:
    pool = (
        Pool.objects.select_for_update(of=("self",))
        .select_related("base", "cluster")
        .filter(id=pool_id)
        .first()
    )
    if pool is None:
        raise NotFound("There is no pool by that id.")
    return pool


def _audit(caller: Caller, verb: str, pool: Pool, detail: Mapping[str, Any]) -> None:
    audit_record(
        caller,
        verb,
        target_type="pool",
        target_id=pool.id,
        organization_id=None,
        detail={"pool": str(pool), **detail},
    )
