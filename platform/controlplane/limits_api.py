"""REST: every limit of an organization with what is used of it now."""

from __future__ import annotations

from typing import Any, ClassVar

from django.urls import path
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.limits import BearerNow, LimitsNow, Meter, limits_now
from tenants.access import Permission
from tenants.models import Billing, Tier
from tenants.rest import OrganizationView


class MeterShape(serializers.Serializer[Any]):
    """``used`` and ``remaining`` are null while Redis does not answer."""

    limit = serializers.IntegerField()
    used = serializers.IntegerField(allow_null=True)
    remaining = serializers.IntegerField(allow_null=True)


class RateShape(MeterShape):
    reset_seconds = serializers.FloatField(
        allow_null=True, help_text="Until the whole minute's worth is there again."
    )


class BudgetShape(serializers.Serializer[Any]):
    limit_nano = serializers.IntegerField(help_text="Nano-USD in this calendar month, UTC.")
    used_nano = serializers.IntegerField(
        allow_null=True, help_text="Spent, and held for calls under way."
    )
    held_nano = serializers.IntegerField(allow_null=True)
    remaining_nano = serializers.IntegerField(allow_null=True)
    hard = serializers.BooleanField(
        help_text="Never overrun; a soft one lets a call start while any of it is left."
    )
    resets_at = serializers.DateTimeField()


class BearerShape(serializers.Serializer[Any]):
    """An organization, a project or a key; null: not limited here."""

    scope = serializers.ChoiceField(["organization", "project", "key"])
    id = serializers.UUIDField()
    name = serializers.CharField()
    requests_per_minute = RateShape(allow_null=True)
    tokens_per_minute = RateShape(allow_null=True)
    concurrency = MeterShape(allow_null=True)
    budget = BudgetShape(allow_null=True)


class BalanceNowShape(serializers.Serializer[Any]):
    """Nano-USD. Available is credited less spent less held."""

    credited_nano = serializers.IntegerField()
    spent_nano = serializers.IntegerField()
    held_nano = serializers.IntegerField(help_text="What calls under way may come to at most.")
    available_nano = serializers.IntegerField()


class LimitsNowShape(serializers.Serializer[Any]):
    live = serializers.BooleanField(help_text="False while Redis does not answer.")
    plan = serializers.CharField()
    tier = serializers.ChoiceField(Tier.choices)
    weight = serializers.IntegerField()
    billing = serializers.ChoiceField(Billing.choices)
    balance = BalanceNowShape(allow_null=True, help_text="Of who pays first; null for others.")
    organization = BearerShape()
    projects = BearerShape(many=True)
    keys = BearerShape(many=True, help_text="Keys in use that have limits of their own.")


class LimitsView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.USAGE_READ}
    scoped: ClassVar = False  # Redis is asked, and nobody waits for it with a transaction open

    @extend_schema(responses=LimitsNowShape)
    def get(self, request: Request) -> Response:
        """The limits of the organization, its projects and keys, and what is used of each now."""
        return Response(_shown(limits_now(self.organization, at=timezone.now())))


def _shown(now: LimitsNow) -> dict[str, Any]:
    return {
        "live": now.is_live,
        "plan": now.plan,
        "tier": now.tier,
        "weight": now.weight,
        "billing": now.billing.value,
        "balance": now.balance and BalanceNowShape(now.balance).data,
        "organization": _bearer(now.organization, now),
        "projects": [_bearer(each, now) for each in now.projects],
        "keys": [_bearer(each, now) for each in now.keys],
    }


def _bearer(each: BearerNow, now: LimitsNow) -> dict[str, Any]:
    return {
        "scope": each.scope,
        "id": str(each.bearer.id),
        "name": each.bearer.name,
        "requests_per_minute": _rate(each.requests),
        "tokens_per_minute": _rate(each.tokens),
        "concurrency": _meter(each.concurrency),
        "budget": _budget(each, now),
    }


def _meter(meter: Meter | None) -> dict[str, Any] | None:
    if meter is None:
        return None
    return {"limit": meter.limit, "used": meter.used, "remaining": meter.remaining}


def _rate(meter: Meter | None) -> dict[str, Any] | None:
    shown = _meter(meter)
    return shown and {**shown, "reset_seconds": meter and meter.reset_seconds}


def _budget(each: BearerNow, now: LimitsNow) -> dict[str, Any] | None:
    if each.budget is None:
        return None
    return {
        "limit_nano": each.budget.limit,
        "used_nano": each.budget.used,
        "held_nano": each.held_nano,
        "remaining_nano": each.budget.remaining,
        "hard": each.bearer.is_budget_hard,
        "resets_at": now.month_ends,
    }


urlpatterns = [path("limits", LimitsView.as_view())]
