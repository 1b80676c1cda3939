"""Operators' pages that need more than one room."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from billing.models import Price
from billing.money import nano_per_token, usd_per_million
from controlplane.prices import base_price_set
from kernel.errors import Invalid
from serving.models import BaseModel
from tenants.admin import ReadOnlyAdmin, operator


class RateField(forms.CharField):
    """Dollars per million tokens, as nano-USD per token."""

    def clean(self, value: str) -> int:
        try:
            return nano_per_token(super().clean(value))
        except Invalid as error:
            raise forms.ValidationError(error.message) from error


class NewPriceForm(forms.ModelForm):  # type: ignore[type-arg]
    base = forms.ModelChoiceField(BaseModel.objects.all(), label="Base model")
    input_nano = RateField(label="Input", help_text="USD per million tokens, such as 0.15.")
    cached_input_nano = RateField(label="Cached input")
    output_nano = RateField(label="Output")

    class Meta:
        model = Price
        fields: ClassVar = ["base", "input_nano", "cached_input_nano", "output_nano"]

    def clean_base(self) -> str:
        return str(self.cleaned_data["base"].slug)


@admin.register(Price)
class PriceAdmin(ReadOnlyAdmin):
    """A price is added, never changed: the newest one counts."""

    form = NewPriceForm
    list_display: ClassVar = [
        "base",
        "input_usd",
        "cached_input_usd",
        "output_usd",
        "effective_from",
        "created_by",
    ]
    list_filter: ClassVar = ["base"]
    search_fields: ClassVar = ["id", "base"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return True

    def save_model(self, request: HttpRequest, obj: Price, form: Any, change: bool) -> None:  # noqa: FBT001
        made = base_price_set(
            obj.base,
            caller=operator(request),
            input_nano=obj.input_nano,
            cached_input_nano=obj.cached_input_nano,
            output_nano=obj.output_nano,
        )
        obj.pk, obj.effective_from = made.pk, made.effective_from

    @admin.display(description="Input, USD per million")
    def input_usd(self, price: Price) -> str:
        return usd_per_million(price.input_nano)

    @admin.display(description="Cached input")
    def cached_input_usd(self, price: Price) -> str:
        return usd_per_million(price.cached_input_nano)

    @admin.display(description="Output")
    def output_usd(self, price: Price) -> str:
        return usd_per_million(price.output_nano)
