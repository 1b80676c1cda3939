"""Reads. What is an organization's is for one organization, which the caller names; prices are
everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from billing.models import BalanceEntry, Price, UsageEvent, WriterSpend
from kernel.errors import Invalid
from kernel.usage import Completeness, Kind, balance_account
from tenants.models import ApiKey, Project

MAX_DAYS = 366
MAX_LINES = 20_000


class Group(StrEnum):
    """What usage can be told apart by."""

    DAY = "day"
    PROJECT = "project"
    KEY = "key"
    MODEL = "model"


# Told apart by an id, which has a name for people.
LABELLED_GROUPS = frozenset({Group.PROJECT, Group.KEY})


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days in UTC, from ``first`` to ``last``, both included."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise Invalid("`to` lies before `from`.", param="to", rule="period_order")
        if (self.last - self.first).days >= MAX_DAYS:
            raise Invalid(
                f"At most {MAX_DAYS} days at once: ask for less at a time.",
                param="from",
                rule="period_length",
            )

    @classmethod
    def last_days(cls, days: int, *, today: date) -> Self:
        return cls(today - timedelta(days=days - 1), today)

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first, time.min, UTC)

    @property
    def end(self) -> datetime:
        """The first instant that is no longer part of it."""
        return datetime.combine(self.last + timedelta(days=1), time.min, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over requests. ``cached_input_tokens`` is a part of ``input_tokens``."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    final: int = 0
    aborted: int = 0
    estimated: int = 0
    unknown: int = 0
    cost_nano: int = 0


@dataclass(frozen=True, slots=True)
class UsageLine:
    """``values`` tells the line apart, one per group asked for; ``labels`` says it for people."""

    values: tuple[str, ...]
    labels: tuple[str, ...]
    totals: Totals


@dataclass(frozen=True, slots=True)
class Usage:
    groups: tuple[Group, ...]
    period: Period
    lines: tuple[UsageLine, ...]
    total: Totals


def usage_by(
    organization_id: UUID,
    *,
    groups: Sequence[Group],
    period: Period,
    project_id: UUID | None = None,
) -> Usage:
    """What an organization used in a period: a line per combination of groups, and their sum.

    Counts what is billable; requests that failed before their first byte are not.
    """
    events = _events(organization_id, period, project_id)
    names = [_COLUMNS[group] for group in groups]
    rows = list(
        events.annotate(**{name: _EXPRESSIONS[name] for name in names})
        .order_by(*names)
        .values(*names)
        .annotate(**_SUMS)[: MAX_LINES + 1]
    )
    if len(rows) > MAX_LINES:
        raise Invalid(
            f"More than {MAX_LINES} lines: ask for a shorter period or fewer groups.",
            param="group_by",
            rule="usage_lines",
        )
    labels = {group: _labels(organization_id, group) for group in groups}
    lines = tuple(_line(row, groups, labels) for row in rows)
    return Usage(tuple(groups), period, lines, _sum(line.totals for line in lines))


def usage_event_list(
    organization_id: UUID, *, period: Period, project_id: UUID | None = None
) -> QuerySet[UsageEvent]:
    """The single requests behind the sums, newest first."""
    return _events(organization_id, period, project_id).order_by("-occurred_at", "-event_id")


@dataclass(frozen=True, slots=True)
class Balance:
    """What an organization was given and what its settled usage came to, in nano-USD.

    Calls under way are not in it: what they may come to at most is held in Redis.
    """

    credited_nano: int
    spent_nano: int

    @property
    def balance_nano(self) -> int:
        return self.credited_nano - self.spent_nano


def balance_of(organization_id: UUID) -> Balance:
    """The newest settled usage is in it within a second or so."""
    credited = BalanceEntry.objects.filter(organization_id=organization_id).aggregate(
        nano=Sum("nano", default=0)
    )
    account = balance_account(str(organization_id))
    return Balance(int(credited["nano"]), spent_by_account(organization_id, [account])[account])


def balance_entry_list(organization_id: UUID) -> QuerySet[BalanceEntry]:
    return BalanceEntry.objects.filter(organization_id=organization_id).order_by("-id")


def spent_by_account(organization_id: UUID, accounts: Sequence[str]) -> dict[str, int]:
    """Nano-USD that settled usage came to on each account (``kernel.usage``) of an organization."""
    spent = (
        WriterSpend.objects.filter(organization_id=organization_id, account__in=accounts)
        .values("account")
        .annotate(sum=Sum("nano"))
    )
    found = {row["account"]: int(row["sum"]) for row in spent}
    return {account: found.get(account, 0) for account in accounts}


def price_at(base: str, instant: datetime) -> Price | None:
    """The price of a base model at an instant; None where it has none, and is not served."""
    return price_list_at(instant).filter(base=base).first()


def price_list_at(instant: datetime) -> QuerySet[Price]:
    """The price of every base model that has one, by its slug."""
    return (
        Price.objects.filter(effective_from__lte=instant)
        .order_by("base", "-effective_from", "-id")
        .distinct("base")
    )


def _events(organization_id: UUID, period: Period, project_id: UUID | None) -> QuerySet[UsageEvent]:
    events = UsageEvent.objects.filter(
        organization_id=organization_id,
        occurred_at__gte=period.start,
        occurred_at__lt=period.end,
        kind=Kind.TOKENS,
        billable=True,
    ).order_by()
    return events if project_id is None else events.filter(project_id=project_id)


_COLUMNS = {group: f"by_{group}" for group in Group}
_EXPRESSIONS: dict[str, Any] = {
    "by_day": TruncDate("occurred_at", tzinfo=UTC),
    "by_project": F("project_id"),
    "by_key": F("key_id"),
    "by_model": F("model"),
}
_SUMS: dict[str, Any] = {
    "requests": Count("event_id"),
    "input_sum": Sum("input_tokens", default=0),
    "cached_input_sum": Sum("cached_input_tokens", default=0),
    "output_sum": Sum("output_tokens", default=0),
    "cost_sum": Sum("cost_nano", default=0),
    **{each.value: Count("event_id", filter=Q(completeness=each)) for each in Completeness},
}


def _sum(parts: Iterable[Totals]) -> Totals:
    """From the lines themselves, so that they add up while more usage arrives."""
    sums = dict.fromkeys((field.name for field in fields(Totals)), 0)
    for part in parts:
        for name in sums:
            sums[name] += getattr(part, name)
    return Totals(**sums)


def _line(
    row: dict[str, Any], groups: Sequence[Group], labels: dict[Group, dict[str, str]]
) -> UsageLine:
    values = tuple(str(row[_COLUMNS[group]]) for group in groups)
    spoken = tuple(
        labels[group].get(value, value) for group, value in zip(groups, values, strict=True)
    )
    return UsageLine(values, spoken, _totals(row))


def _totals(row: dict[str, Any]) -> Totals:
    # PostgreSQL sums bigints as numeric, which arrives as Decimal.
    return Totals(
        requests=row["requests"],
        input_tokens=int(row["input_sum"]),
        cached_input_tokens=int(row["cached_input_sum"]),
        output_tokens=int(row["output_sum"]),
        cost_nano=int(row["cost_sum"]),
        **{each.value: row[each.value] for each in Completeness},
    )


def _labels(organization_id: UUID, group: Group) -> dict[str, str]:
    """Names for ids; days and models speak for themselves."""
    if group == Group.PROJECT:
        projects = Project.objects.filter(organization_id=organization_id)
        return {str(id_): name for id_, name in projects.values_list("id", "name")}
    if group == Group.KEY:
        keys = ApiKey.objects.filter(organization_id=organization_id)
        return {str(key.id): str(key) for key in keys.only("id", "name", "last4")}
    return {}
