"""One pool, brought from what is to what should be. Run it twice and nothing happens the second
time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from django.utils import timezone

from kernel.errors import Unavailable
from serving.controller.apply import apply_plan
from serving.controller.claims import Claim, ClaimLost, claim_finish, claim_take
from serving.controller.desired import PoolRows, engine_spec, pool_rows
from serving.controller.observed import replicas_of_pool
from serving.controller.outcome import Findings, findings_write
from serving.controller.plan import make_plan
from serving.controller.runtime import ObservedItem, Plan, Runtime
from tenants.scope import platform_scope

RuntimeOf = Callable[[UUID], Runtime]
"""The runtime of a cluster."""

STEADY = timedelta(seconds=30)
UNSETTLED = timedelta(seconds=5)

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    DONE = "done"  # everything is as it should be
    LOOK_AGAIN = "look_again"  # changed something, or waits for something
    BUSY = "busy"  # somebody else is at it
    LOST = "lost"  # somebody else took over


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """``items`` is what there was after the plan was carried out; ``trouble`` why it was not."""

    plan: Plan
    items: tuple[ObservedItem, ...]
    trouble: str = ""


def pool_reconcile(pool_id: UUID, *, runtime_of: RuntimeOf) -> Outcome:
    """Look at a pool and do what is due."""
    claim = claim_take(pool_id)
    if claim is None:
        return Outcome.BUSY
    with platform_scope():
        rows = pool_rows(pool_id)
    if rows is None:
        return Outcome.LOST
    result = _carry_out(rows, runtime_of)
    try:
        settled = _settle(claim, rows, result)
    except ClaimLost:
        log.info("pool %s: somebody else took over", pool_id)
        return Outcome.LOST
    return Outcome.DONE if settled else Outcome.LOOK_AGAIN


def _carry_out(rows: PoolRows, runtime_of: RuntimeOf) -> _Result:
    """Plan and apply. No transaction is open here: a runtime is somebody else's time."""
    try:
        runtime = runtime_of(rows.cluster_id)
        items = _owned(runtime.observe(), rows)
        desired = runtime.render(engine_spec(rows, now=timezone.now()))
        plan = make_plan(desired, items, runtime.difference)
        if not plan.is_empty:
            apply_plan(plan, runtime)
            items = _owned(runtime.observe(), rows)
    except Unavailable as error:
        log.warning("pool %s: %s", rows.pool_id, error.message)
        return _Result(plan=Plan(), items=(), trouble=error.message)
    return _Result(plan=plan, items=items)


def _owned(items: Sequence[ObservedItem], rows: PoolRows) -> tuple[ObservedItem, ...]:
    names = {replica.name for replica in rows.replicas}
    return tuple(item for item in items if item.owner in names)


def _settle(claim: Claim, rows: PoolRows, result: _Result) -> bool:
    """Write what was found. True where nothing more is expected to happen by itself."""
    renewed = result.plan.renewed
    void = {row.name: row.reported_at for row in rows.replicas if row.name in renewed}
    with platform_scope():
        replicas = replicas_of_pool(rows.pool_id, result.items, void=void)
    findings = Findings(rows=rows, replicas=replicas, renewed=renewed, trouble=result.trouble)
    settled = result.plan.is_empty and not result.trouble and findings.is_settled(timezone.now())
    claim_finish(
        claim,
        reason=result.trouble,
        look_again_in=STEADY if settled else UNSETTLED,
        write=lambda: findings_write(findings, now=timezone.now()),
    )
    return settled
