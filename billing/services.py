"""Writes: prices, balances, partitions. Usage itself is written by the shipper, never from here."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import connection
from django.utils import timezone

from billing.models import MAX_NANO, MAX_NANO_PER_TOKEN, BalanceEntry, Price
from billing.selectors import balance_of
from kernel.errors import Conflict, Invalid
from tenants.access import Caller, Permission
from tenants.scope import organization_scope, platform_scope
from tenants.selectors import organization_get
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


def balance_credit(
    organization_id: UUID, *, caller: Caller, nano: int, reason: str, operation: str
) -> BalanceEntry:
    """Give an organization an amount, or take one back (below zero).

    ``operation`` names what is done, such as a payment's id: the same again is answered with the
    entry that is there. Gateways know of it within seconds.
    """
    caller.require(Permission.OPERATE)
    reason, operation = reason.strip(), operation.strip()
    if not nano:
        raise Invalid("An amount is not zero.", param="amount", rule="amount")
    if not 0 < len(reason) <= 200:
        raise Invalid("Say why, in 1 to 200 characters.", param="reason", rule="reason")
    if not 0 < len(operation) <= 100:
        raise Invalid("Name the operation, in 1 to 100 characters.", param="operation")
    with organization_scope(organization_id):
        organization = organization_get(organization_id)
        _one_entry_at_a_time()
        known = BalanceEntry.objects.filter(organization=organization, operation=operation).first()
        if known is not None:
            if known.nano != nano:
                raise Conflict("This operation was done with another amount.", param="operation")
            return known
        if abs(balance_of(organization_id).credited_nano + nano) > MAX_NANO:
            raise Invalid("A balance stays below 2^53 nano-USD.", param="amount", rule="amount")
        entry = BalanceEntry.objects.create(
            organization=organization,
            nano=nano,
            reason=reason,
            actor=caller.label,
            operation=operation,
        )
        audit_record(
            caller,
            "balance.credit",
            target_type="balanceentry",
            target_id=entry.id,
            organization_id=organization_id,
            detail={"nano": nano, "reason": reason, "operation": operation},
        )
    return entry


def _one_entry_at_a_time() -> None:
    """Until this transaction ends, so that a higher id is never committed before a lower one:
    gateways read on from the last entry that they have seen, over all organizations.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('balance_entry'))")
