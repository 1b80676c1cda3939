"""An organization's limits with what is used of them now: rows joined with what admission holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from billing.selectors import Balance, balance_of, spent_by_account
from controlplane import admitted
from controlplane.admitted import AccountUse, AdmissionUnread, SubjectUse
from kernel.clock import micros
from kernel.usage import (
    balance_account,
    key_account,
    organization_account,
    project_account,
    usage_month,
)
from tenants import selectors
from tenants.models import Billing
from tenants.scope import organization_scope
from tenants.selectors import Bearer

_MINUTE_MICROS = 60_000_000
_PREFIXES = {"organization": "org", "project": "project", "key": "key"}
_ACCOUNTS = {
    "organization": organization_account,
    "project": project_account,
    "key": key_account,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One limit and what is used of it. ``reset_seconds``: until it is whole again, where calls
    end by the clock.
    """

    limit: int
    used: int | None  # unknown while Redis does not answer
    reset_seconds: float | None = None

    @property
    def remaining(self) -> int | None:
        return None if self.used is None else max(0, self.limit - self.used)

    @property
    def share(self) -> float:
        """How much is used, 0 to 1; what is limited to nothing is used up."""
        if self.used is None:
            return 0.0
        return min(1.0, self.used / self.limit) if self.limit else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerNow:
    bearer: Bearer
    requests: Meter | None
    tokens: Meter | None
    concurrency: Meter | None
    budget: Meter | None  # nano-USD; used is spent and held together
    held_nano: int | None = None

    @property
    def scope(self) -> Literal["organization", "project", "key"]:
        return self.bearer.scope


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsNow:
    """``is_live`` is false while Redis does not answer: limits are shown, use is not known."""

    tier: str
    weight: int
    billing: Billing
    plan: str
    is_live: bool
    organization: BearerNow
    projects: tuple[BearerNow, ...]
    keys: tuple[BearerNow, ...]
    balance: BalanceNow | None  # of who pays first
    month_ends: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceNow:
    """What is left to spend: credits less settled usage, less what calls under way may come to."""

    credited_nano: int
    spent_nano: int
    held_nano: int

    @property
    def available_nano(self) -> int:
        return self.credited_nano - self.spent_nano - self.held_nano


def limits_now(organization_id: UUID, *, at: datetime) -> LimitsNow:
    """Rows in one short scope, then Redis outside of it: nobody waits with a transaction open."""
    month = usage_month(micros(at.timestamp()))
    with organization_scope(organization_id):
        organization = selectors.organization_get(organization_id)
        bearers = selectors.bearer_list(organization_id)
        accounts = [_ACCOUNTS[each.scope](str(each.id), month) for each in bearers]
        settled = spent_by_account(organization_id, accounts)
        balance = balance_of(organization_id)
    pays_first = organization.billing_mode is Billing.PREPAID
    subjects = [f"{_PREFIXES[each.scope]}:{each.id}" for each in bearers]
    use = _use(subjects, [*accounts, balance_account(str(organization_id))])
    shown = [
        bearer_now(
            bearer,
            use.subjects[place] if use else None,
            known(use.accounts[place], settled[account]) if use else None,
        )
        for place, (bearer, account) in enumerate(zip(bearers, accounts, strict=True))
    ]
    return LimitsNow(
        tier=organization.plan.tier,
        weight=organization.plan.weight,
        billing=organization.billing_mode,
        plan=organization.plan.name,
        is_live=use is not None,
        organization=shown[0],
        projects=tuple(each for each in shown if each.scope == "project"),
        keys=tuple(each for each in shown if each.scope == "key"),
        balance=balance_now(balance, use.accounts[-1] if use else None) if pays_first else None,
        month_ends=month_end(at),
    )


def known(account: AccountUse, settled_nano: int) -> AccountUse:
    """An account that nobody has called on in this epoch is as PostgreSQL says."""
    return account if account.base is not None else AccountUse(base=-settled_nano)


def balance_now(balance: Balance, account: AccountUse | None) -> BalanceNow:
    """Pure: what PostgreSQL says, with what admission knows beyond it where it has the account."""
    if account is None or account.base is None:
        spent, held = balance.spent_nano, account.held if account else 0
    else:
        spent, held = balance.credited_nano - account.base + account.spent, account.held
    return BalanceNow(credited_nano=balance.credited_nano, spent_nano=spent, held_nano=held)


def _use(subjects: list[str], accounts: list[str]) -> admitted.Use | None:
    try:
        return admitted.use_now(subjects, accounts)
    except AdmissionUnread:
        return None


def bearer_now(bearer: Bearer, use: SubjectUse | None, account: AccountUse | None) -> BearerNow:
    """Pure: a bearer's limits with what admission says of it; None where it could not say."""
    return BearerNow(
        bearer=bearer,
        requests=_rate(bearer.requests_per_minute, use.requests_micros if use else None),
        tokens=_rate(bearer.tokens_per_minute, use.tokens_micros if use else None),
        concurrency=_running(bearer.concurrency, use),
        budget=_budget(bearer.budget_nano, account),
        held_nano=account.held if account else None,
    )


def month_end(at: datetime) -> datetime:
    """The first instant of the next calendar month, UTC: when monthly budgets begin anew."""
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return datetime(year, month, 1, tzinfo=UTC)


def _rate(limit: int | None, filled: int | None) -> Meter | None:
    if limit is None:
        return None
    if filled is None:
        return Meter(limit=limit, used=None)
    used = math.ceil(limit * filled / _MINUTE_MICROS)
    return Meter(limit=limit, used=used, reset_seconds=filled / 1_000_000)


def _running(limit: int | None, use: SubjectUse | None) -> Meter | None:
    return None if limit is None else Meter(limit=limit, used=use.running if use else None)


def _budget(limit: int | None, account: AccountUse | None) -> Meter | None:
    """A monthly account has no credits: its base is what others spent before, negative."""
    if limit is None:
        return None
    if account is None:
        return Meter(limit=limit, used=None)
    return Meter(limit=limit, used=account.spent + account.held - (account.base or 0))
