"""Operators' view of usage and balances: everything may be looked at; a credit is added."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin

from billing.models import (
    BalanceEntry,
    GatewayRoster,
    JournalPosition,
    UsageEvent,
    UsageQuarantine,
)
from billing.money import nano_of_usd, usd
from billing.services import balance_credit
from billing.writers import writer_state
from kernel.errors import Invalid
from kernel.ids import ulid
from tenants.admin import ReadOnlyAdmin as ServiceReadOnlyAdmin
from tenants.admin import operator


class ReadOnlyAdmin(ModelAdmin):
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnlyAdmin):
    list_display: ClassVar = (
        "occurred_at",
        "event_id",
        "organization_id",
        "model",
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "cost_nano",
        "completeness",
        "billable",
        "finish_reason",
    )
    list_filter: ClassVar = ("completeness", "billable", "cluster")
    search_fields: ClassVar = ("=event_id", "=organization_id", "=key_id")
    search_help_text = "Event id, organization id or key id, in full."
    list_per_page = 50


@admin.register(UsageQuarantine)
class UsageQuarantineAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ("received_at", "reason", "event_id", "occurred_at", "detail")
    list_filter: ClassVar = ("reason",)
    search_fields: ClassVar = ("=event_id",)


@admin.register(JournalPosition)
class JournalPositionAdmin(ReadOnlyAdmin):
    list_display: ClassVar = (
        "writer",
        "state",
        "seen_at",
        "updated_at",
        "closed_at",
        "held_because",
        "written_off_by",
    )
    list_filter: ClassVar = (
        ("closed_at", admin.EmptyFieldListFilter),
        ("held_because", admin.EmptyFieldListFilter),
        ("written_off_at", admin.EmptyFieldListFilter),
    )
    search_fields: ClassVar = ("writer",)

    @admin.display(description="state")
    def state(self, writer: JournalPosition) -> str:
        return writer_state(writer, now=timezone.now())


@admin.register(GatewayRoster)
class GatewayRosterAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ("writer", "cell", "node", "entered_at")
    list_filter: ClassVar = ("cell",)
    search_fields: ClassVar = ("writer", "node")


class NewCreditForm(forms.ModelForm):  # type: ignore[type-arg]
    amount = forms.CharField(help_text="In US dollars, such as 25.00; below zero takes it back.")
    # Made with the form, so that sending it twice credits once.
    operation = forms.CharField(widget=forms.HiddenInput, initial=lambda: f"admin:{ulid()}")

    class Meta:
        model = BalanceEntry
        fields: ClassVar = ["organization", "amount", "reason", "operation"]

    def clean_amount(self) -> int:
        try:
            return nano_of_usd(self.cleaned_data["amount"])
        except Invalid as error:
            raise forms.ValidationError(error.message) from error


@admin.register(BalanceEntry)
class BalanceEntryAdmin(ServiceReadOnlyAdmin):
    """An entry is added, never changed."""

    list_display: ClassVar = ("created_at", "organization", "amount", "reason", "actor")
    list_select_related: ClassVar = ("organization",)
    search_fields: ClassVar = ("organization__slug", "=operation")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return True

    def get_form(self, request: HttpRequest, obj: Any = None, *args: Any, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = NewCreditForm
        return super().get_form(request, obj, *args, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        if obj is None:
            return ["organization", "amount", "reason", "operation"]
        return ["organization", "nano", "reason", "actor", "operation", "created_at"]

    def save_model(self, request: HttpRequest, obj: BalanceEntry, form: Any, change: bool) -> None:  # noqa: FBT001
        made = balance_credit(
            obj.organization_id,
            caller=operator(request),
            nano=form.cleaned_data["amount"],
            reason=obj.reason,
            operation=obj.operation,
        )
        obj.pk, obj.nano = made.pk, made.nano

    @admin.display(description="Amount, USD")
    def amount(self, entry: BalanceEntry) -> str:
        return usd(entry.nano)
