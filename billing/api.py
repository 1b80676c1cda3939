"""REST: what an organization used, as JSON and as CSV; what a token costs; the balance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any, ClassVar
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing.export import usage_csv
from billing.models import BalanceEntry, Price
from billing.money import usd, usd_per_million
from billing.selectors import (
    LABELLED_GROUPS,
    Group,
    Period,
    Totals,
    Usage,
    UsageLine,
    balance_entry_list,
    balance_of,
    price_list_at,
    usage_by,
)
from kernel.errors import Invalid
from tenants.access import Permission
from tenants.rest import OrganizationView
from tenants.selectors import project_get

DEFAULT_DAYS = 30
_PARAMETERS = frozenset({"from", "to", "group_by", "project", "organization", "format"})


class TotalsShape(serializers.Serializer[Any]):
    requests = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    cached_input_tokens = serializers.IntegerField(help_text="A part of `input_tokens`.")
    output_tokens = serializers.IntegerField()
    final = serializers.IntegerField(help_text="Requests counted by the engine to their end.")
    aborted = serializers.IntegerField(help_text="Requests that were cut; counted until then.")
    estimated = serializers.IntegerField(
        help_text="Requests counted up to a second before a crash."
    )
    unknown = serializers.IntegerField(
        help_text="Requests lost in a crash; the prompt is estimated."
    )
    cost_nano = serializers.IntegerField(help_text="Nano-USD (10^-9 dollars), summed exactly.")


class UsageLineShape(TotalsShape):
    day = serializers.DateField(required=False)
    project = serializers.UUIDField(required=False)
    project_name = serializers.CharField(required=False)
    key = serializers.UUIDField(required=False)
    key_name = serializers.CharField(required=False)
    model = serializers.CharField(required=False)


class UsageShape(serializers.Serializer[Any]):
    first_day = serializers.DateField()
    last_day = serializers.DateField()
    group_by = serializers.ListField(child=serializers.ChoiceField([each.value for each in Group]))
    lines = UsageLineShape(many=True)
    total = TotalsShape()


class CsvRenderer(BaseRenderer):
    """Makes ``?format=csv`` and ``Accept: text/csv`` known; the view writes the text itself."""

    media_type = "text/csv"
    format = "csv"

    def render(self, data: Any, media_type: str | None = None, context: Any = None) -> bytes:
        raise NotImplementedError("Refusals are JSON, and usage is rendered by its view.")


class UsageView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.USAGE_READ}
    renderer_classes = (JSONRenderer, CsvRenderer)

    @extend_schema(
        parameters=[
            OpenApiParameter("from", OpenApiTypes.DATE, description="First day, UTC."),
            OpenApiParameter(
                "to", OpenApiTypes.DATE, description="Last day, UTC; today if absent."
            ),
            OpenApiParameter(
                "group_by",
                description="One or more of `day`, `project`, `key`, `model`, with commas between.",
            ),
            OpenApiParameter("project", OpenApiTypes.UUID, description="Of this project only."),
            OpenApiParameter("format", enum=["json", "csv"]),
        ],
        responses={
            (200, "application/json"): UsageShape,
            (200, "text/csv"): OpenApiResponse(OpenApiTypes.STR),
        },
    )
    def get(self, request: Request) -> Response | HttpResponse:
        """Tokens and requests in whole days, per group, and their sum."""
        given = request.query_params
        _refuse_unknown(given)
        usage = usage_by(
            self.organization,
            groups=_groups(given.get("group_by", "")),
            period=_period(given, today=datetime.now(UTC).date()),
            project_id=self._project(given.get("project", "")),
        )
        if request.accepted_renderer.format == CsvRenderer.format:
            return _csv(usage)
        return Response(_shown(usage))

    def handle_exception(self, exc: Exception) -> Response:
        """Refusals look the same whatever format was asked for."""
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)

    def _project(self, named: str) -> UUID | None:
        return project_get(self.organization, named).id if named else None


class RatesShape(serializers.Serializer[Any]):
    input = serializers.CharField()
    cached_input = serializers.CharField()
    output = serializers.CharField()


class PriceShape(serializers.Serializer[Any]):
    base_model = serializers.CharField()
    version = serializers.UUIDField(help_text="The `price_version` of usage at this price.")
    effective_from = serializers.DateTimeField()
    usd_per_million_tokens = RatesShape(help_text="Exact decimals in dollars, as text.")


class PricesShape(serializers.Serializer[Any]):
    items = PriceShape(many=True)


class PricesView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.USAGE_READ}

    @extend_schema(responses=PricesShape)
    def get(self, request: Request) -> Response:
        """What a token costs now on each base model; a model costs what its base model costs."""
        return Response({"items": [_price(price) for price in price_list_at(datetime.now(UTC))]})


def _price(price: Price) -> dict[str, Any]:
    return {
        "base_model": price.base,
        "version": str(price.id),
        "effective_from": price.effective_from.isoformat(),
        "usd_per_million_tokens": {
            "input": usd_per_million(price.input_nano),
            "cached_input": usd_per_million(price.cached_input_nano),
            "output": usd_per_million(price.output_nano),
        },
    }


class BalanceShape(serializers.Serializer[Any]):
    balance_nano = serializers.IntegerField(help_text="Credits less what settled usage came to.")
    credited_nano = serializers.IntegerField()
    spent_nano = serializers.IntegerField()
    balance_usd = serializers.CharField(help_text="`balance_nano` in dollars, exactly.")


class BalanceView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.USAGE_READ}

    @extend_schema(responses=BalanceShape)
    def get(self, request: Request) -> Response:
        """What was paid in, what was spent, and what is left; calls under way are not in it."""
        found = balance_of(self.organization)
        return Response(
            {
                "balance_nano": found.balance_nano,
                "credited_nano": found.credited_nano,
                "spent_nano": found.spent_nano,
                "balance_usd": usd(found.balance_nano),
            }
        )


class BalanceEntryShape(serializers.ModelSerializer[BalanceEntry]):
    class Meta:
        model = BalanceEntry
        fields: ClassVar = ["id", "nano", "reason", "created_at"]


class BalanceEntriesView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.USAGE_READ}

    @extend_schema(responses=BalanceEntryShape(many=True))
    def get(self, request: Request) -> Response:
        """What was paid in or taken back, newest first."""
        return self.page(balance_entry_list(self.organization), BalanceEntryShape)


def _refuse_unknown(given: Mapping[str, str]) -> None:
    for name in given:
        if name not in _PARAMETERS:
            raise Invalid(
                f"There is no parameter {name[:80]!r} here.", param=name[:80], rule="unknown_field"
            )


def _groups(text: str) -> tuple[Group, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()] or [Group.DAY.value]
    try:
        return tuple(dict.fromkeys(Group(name) for name in names))
    except ValueError:
        known = ", ".join(Group)
        raise Invalid(f"Group by any of: {known}.", param="group_by", rule="group_known") from None


def _period(given: Mapping[str, str], *, today: date) -> Period:
    last = _day(given, "to") or today
    first = _day(given, "from") or Period.last_days(DEFAULT_DAYS, today=last).first
    return Period(first, last)


def _day(given: Mapping[str, str], name: str) -> date | None:
    text = given.get(name, "")
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise Invalid(
            f"`{name}` is a day such as 2026-01-31.", param=name, rule="date_format"
        ) from None


def _shown(usage: Usage) -> dict[str, Any]:
    return {
        "first_day": usage.period.first.isoformat(),
        "last_day": usage.period.last.isoformat(),
        "group_by": [group.value for group in usage.groups],
        "lines": [{**_named(usage.groups, line), **_sums(line.totals)} for line in usage.lines],
        "total": _sums(usage.total),
    }


def _named(groups: tuple[Group, ...], line: UsageLine) -> dict[str, str]:
    named: dict[str, str] = {}
    for group, value, label in zip(groups, line.values, line.labels, strict=True):
        named[group.value] = value
        if group in LABELLED_GROUPS:
            named[f"{group}_name"] = label
    return named


def _sums(totals: Totals) -> dict[str, int]:
    return asdict(totals)


def _csv(usage: Usage) -> HttpResponse:
    name = f"usage-{usage.period.first}-{usage.period.last}.csv"
    return HttpResponse(
        usage_csv(usage),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
