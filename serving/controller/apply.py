"""Carry a plan out, and say once why."""

from __future__ import annotations

import logging

from serving.controller.runtime import Plan, Runtime

log = logging.getLogger(__name__)


def apply_plan(plan: Plan, runtime: Runtime) -> None:
    """Does nothing at all for an empty plan."""
    if plan.is_empty:
        return
    log.info("changing: %s", "; ".join(plan.reasons))
    runtime.apply(plan)
