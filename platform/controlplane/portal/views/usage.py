"""What was used: bars by day, the same as a table, and as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from billing.export import usage_csv
from billing.selectors import Balance, Group, Period, Totals, Usage, balance_of, usage_by
from controlplane.portal import charts
from controlplane.portal.access import Member, member_page
from kernel.errors import Invalid
from tenants.access import Permission
from tenants.models import Billing

DAYS = (7, 30, 90)
MEASURES = {"tokens": gettext_lazy("Tokens"), "requests": gettext_lazy("Requests")}
GROUPS = {
    Group.MODEL: gettext_lazy("Model"),
    Group.KEY: gettext_lazy("Key"),
    Group.PROJECT: gettext_lazy("Project"),
    Group.DAY: gettext_lazy("Day"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What the page is asked for, out of its address."""

    days: int
    group: Group
    measure: str

    @classmethod
    def of(cls, query: QueryDict) -> Question:
        days, group = query.get("days", "30"), query.get("group", Group.MODEL)
        measure = query.get("measure", "tokens")
        if days not in map(str, DAYS):
            raise Invalid(f"days is one of {', '.join(map(str, DAYS))}.", param="days")
        if group not in list(Group):
            raise Invalid(f"group is one of {', '.join(Group)}.", param="group")
        if measure not in MEASURES:
            raise Invalid(f"measure is one of {', '.join(MEASURES)}.", param="measure")
        return cls(int(days), Group(group), measure)

    def but(self, **changes: object) -> str:
        """The query string that asks the same but for ``changes``."""
        asked = {"days": self.days, "group": self.group, "measure": self.measure}
        return urlencode(asked | changes)

    def period(self) -> Period:
        return Period.last_days(self.days, today=datetime.now(UTC).date())

    def groups(self) -> list[Group]:
        return [Group.DAY] if self.group is Group.DAY else [Group.DAY, self.group]


@require_safe
@member_page(Permission.USAGE_READ)
def usage(request: HttpRequest, member: Member) -> HttpResponse:
    question = Question.of(request.GET)
    period = question.period()
    used = usage_by(member.organization.id, groups=question.groups(), period=period)
    chart = _chart(used, question)
    context = {
        "member": member,
        "question": question,
        "group_label": GROUPS[question.group],
        "measure_label": MEASURES[question.measure],
        "choices": _choices(question),
        "used": used,
        "chart": chart,
        "rows": _rows(chart),
        "portal_url": settings.TESSERA_PORTAL_URL,
        "summary": _summary(used),
        "csv_query": question.but(),
        "balance": _balance(member),
    }
    return render(request, "portal/usage.html", context)


def _balance(member: Member) -> Balance | None:
    """Shown to who pays in advance, or was ever credited anything."""
    balance = balance_of(member.organization.id)
    pays_first = member.organization.billing_mode is Billing.PREPAID
    return balance if pays_first or balance.credited_nano else None


@require_safe
@member_page(Permission.USAGE_READ)
def csv(request: HttpRequest, member: Member) -> HttpResponse:
    question = Question.of(request.GET)
    period = question.period()
    used = usage_by(member.organization.id, groups=question.groups(), period=period)
    name = f"usage-{member.organization.slug}-{period.first}-{period.last}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(usage_csv(used), content_type="text/csv; charset=utf-8", headers=headers)


def days_of(period: Period) -> list[date]:
    count = (period.last - period.first).days + 1
    return [period.first + timedelta(days=number) for number in range(count)]


def _choices(question: Question) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """The page's switches: for each a name, and its options with address and whether it is on."""
    return [
        (
            _("Period"),
            [
                (
                    _("%(days)d days") % {"days": days},
                    question.but(days=days),
                    days == question.days,
                )
                for days in DAYS
            ],
        ),
        (
            _("Group by"),
            [
                (str(label), question.but(group=group), group == question.group)
                for group, label in GROUPS.items()
            ],
        ),
        (
            _("Measure"),
            [
                (str(label), question.but(measure=measure), measure == question.measure)
                for measure, label in MEASURES.items()
            ],
        ),
    ]


def _chart(used: Usage, question: Question) -> charts.Chart:
    days = [str(day) for day in days_of(used.period)]
    places = {day: place for place, day in enumerate(days)}
    values: dict[str, list[int]] = {}
    for line in used.lines:
        for label, amount in _amounts(line.labels, line.totals, question):
            values.setdefault(label, [0] * len(days))[places[line.values[0]]] += amount
    return charts.stacked(days, values, rest=_("Others"))


def _rows(chart: charts.Chart) -> list[tuple[str, list[int], int]]:
    """The chart as lines of a table, the latest day first."""
    return [
        (column.label, [series.values[place] for series in chart.series], column.total)
        for place, column in reversed(list(enumerate(chart.columns)))
    ]


def _amounts(labels: tuple[str, ...], totals: Totals, question: Question) -> list[tuple[str, int]]:
    """What one line adds to the chart; by day alone, tokens are told apart by direction."""
    if question.measure == "requests":
        return [(labels[-1] if len(labels) > 1 else _("Requests"), totals.requests)]
    if len(labels) > 1:
        return [(labels[-1], totals.input_tokens + totals.output_tokens)]
    return [(_("Input"), totals.input_tokens), (_("Output"), totals.output_tokens)]


def _summary(used: Usage) -> list[tuple[str, Totals]]:
    """One line per model, key, project or day: the sums of the whole period, the largest first."""
    sums: dict[str, list[Totals]] = {}
    for line in used.lines:
        sums.setdefault(line.labels[-1], []).append(line.totals)
    added = [(label, add(parts)) for label, parts in sums.items()]
    if used.groups == (Group.DAY,):
        return sorted(added, reverse=True, key=lambda item: item[0])
    return sorted(added, key=lambda item: -(item[1].input_tokens + item[1].output_tokens))


def add(parts: list[Totals]) -> Totals:
    return Totals(
        requests=sum(part.requests for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        cached_input_tokens=sum(part.cached_input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        final=sum(part.final for part in parts),
        aborted=sum(part.aborted for part in parts),
        estimated=sum(part.estimated for part in parts),
        unknown=sum(part.unknown for part in parts),
        cost_nano=sum(part.cost_nano for part in parts),
    )
