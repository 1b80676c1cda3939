"""Operators' view of usage: everything may be looked at, nothing changed."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from billing.models import JournalPosition, UsageEvent, UsageQuarantine


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
    list_display: ClassVar = ("writer", "segment", "offset", "updated_at", "closed_at")
    list_filter: ClassVar = (("closed_at", admin.EmptyFieldListFilter),)
    search_fields: ClassVar = ("writer",)
