"""Who works on a pool: a token in its row, until it expires. Time is the database's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db.models import Q
from django.db.models.functions import Now

from serving.changes import pool_changed
from serving.models import Pool
from tenants.scope import platform_scope

# Longer than a reconcile can take: its doors have time limits that add up to less.
CLAIM_FOR = timedelta(seconds=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """``look_at`` is what the row said: if it says otherwise at the end, something changed."""

    pool_id: UUID
    token: UUID
    look_at: datetime


class ClaimLost(Exception):
    """Somebody else took over; what we found out is theirs to find out again."""


def claim_take(pool_id: UUID) -> Claim | None:
    """The claim, or nothing where somebody else works on this pool or there is none."""
    free = Q(claim_token=None) | Q(claim_expires_at__lt=Now())
    with platform_scope():
        rows = Pool.objects.select_for_update(skip_locked=True).filter(free, id=pool_id)
        pool = rows.first()
        if pool is None:
            return None
        token = uuid4()
        Pool.objects.filter(id=pool_id).update(
            claim_token=token, claim_expires_at=Now() + CLAIM_FOR
        )
    return Claim(pool_id=pool_id, token=token, look_at=pool.look_at)


def claim_finish(
    claim: Claim, *, reason: str, look_again_in: timedelta, write: Callable[[], None]
) -> None:
    """Write the result and give the claim back, both or neither.

    ``write`` runs first and the claim is checked last, in one transaction: deployments are locked
    before their pool here as in every service. Raises ``ClaimLost`` and keeps nothing where the
    claim is no longer ours. What changed while we worked is looked at again at once.
    """
    with platform_scope():
        write()
        mine = Pool.objects.filter(id=claim.pool_id, claim_token=claim.token)
        if not mine.update(claim_token=None, claim_expires_at=None, reason=reason):
            raise ClaimLost
        unchanged = Pool.objects.filter(id=claim.pool_id, look_at=claim.look_at)
        if not unchanged.update(look_at=Now() + look_again_in):
            pool_changed(claim.pool_id)
