"""Prices of base models, where billing's rows and serving's catalogue meet."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from billing.models import Price
from billing.selectors import price_at, price_list_at
from billing.services import price_set
from kernel.errors import NotFound
from serving.changes import documents_changed
from serving.contracts import Price as RoutePrice
from serving.models import BaseModel
from tenants.access import Caller
from tenants.scope import platform_scope


def base_price_set(  # noqa: PLR0913 - what a price consists of
    base: str,
    *,
    caller: Caller,
    input_nano: int,
    cached_input_nano: int,
    output_nano: int,
    effective_from: datetime | None = None,
) -> Price:
    """A new price of a base model that is in the catalogue; gateways have it within moments."""
    with platform_scope():
        if not BaseModel.objects.filter(slug=base).exists():
            raise NotFound(f"There is no base model {base[:40]!r}.", param="base")
        price = price_set(
            base,
            caller=caller,
            input_nano=input_nano,
            cached_input_nano=cached_input_nano,
            output_nano=output_nano,
            effective_from=effective_from,
        )
        documents_changed()
    return price


def base_price_ensure(
    base: str, *, caller: Caller, input_nano: int, cached_input_nano: int, output_nano: int
) -> None:
    """Give a base model this price if it has none."""
    if price_at(base, timezone.now()) is None:
        base_price_set(
            base,
            caller=caller,
            input_nano=input_nano,
            cached_input_nano=cached_input_nano,
            output_nano=output_nano,
        )


def route_prices(instant: datetime) -> dict[str, RoutePrice]:
    """What gateways charge at an instant, by base model's slug."""
    return {
        price.base: RoutePrice(
            version=str(price.id),
            input=price.input_nano,
            cached_input=price.cached_input_nano,
            output=price.output_nano,
        )
        for price in price_list_at(instant)
    }
