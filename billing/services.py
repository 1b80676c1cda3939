"""Writes: prices and partitions. Usage itself is written by the shipper, never from here."""

from __future__ import annotations

from datetime import datetime

from django.db import connection
from django.utils import timezone

from billing.models import MAX_NANO_PER_TOKEN, Price
from kernel.errors import Invalid
from tenants.access import Caller, Permission
from tenants.scope import platform_scope
from tenants.services import audit_record

MONTHS_AHEAD = 3


def partitions_create(months_ahead: int = MONTHS_AHEAD) -> int:
    """Have a partition for this month and the following ones. The number of those that are new.

    Until a month has one its usage lies in the default partition, and moves when it gets one.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT usage_event_partitions(%s)", [months_ahead])
        (created,) = cursor.fetchone()
    return int(created)


def price_set(  # noqa: PLR0913 - what a price consists of
    base: str,
    *,
    caller: Caller,
    input_nano: int,
    cached_input_nano: int,
    output_nano: int,
    effective_from: datetime | None = None,
) -> Price:
    """What a token of ``base`` (a base model's slug) costs from now, or a later instant, on.

    A new version, always: what was priced before stays as it was. Never in the past, because calls
    of the past were let in at another price.
    """
    caller.require(Permission.OPERATE)
    rates = {
        "input_nano": input_nano,
        "cached_input_nano": cached_input_nano,
        "output_nano": output_nano,
    }
    for name, nano in rates.items():
        if not 0 <= nano <= MAX_NANO_PER_TOKEN:
            raise Invalid(
                "A token costs between nothing and one dollar.", param=name, rule="price_range"
            )
    now = timezone.now()
    if effective_from is not None and effective_from < now:
        raise Invalid("A price cannot begin in the past.", param="effective_from", rule="past")
    with platform_scope():
        price = Price.objects.create(
            base=base, effective_from=effective_from or now, created_by=caller.label, **rates
        )
        audit_record(
            caller,
            "price.set",
            target_type="price",
            target_id=price.id,
            organization_id=None,
            detail={"base": base, "effective_from": price.effective_from.isoformat(), **rates},
        )
    return price
