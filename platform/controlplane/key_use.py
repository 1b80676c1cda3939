"""When each key was last used: known to billing, kept with the key, joined here."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Max
from django.utils import timezone

from billing.models import UsageEvent
from tenants.scope import platform_scope
from tenants.services import keys_used

# Longer than usage takes to arrive, so that no key is missed between two looks.
_LOOK_BACK = timedelta(minutes=15)


def key_use_note() -> None:
    """Carry the instants of recent usage over to the keys. Running it twice changes nothing."""
    with platform_scope():
        recent = UsageEvent.objects.filter(occurred_at__gte=timezone.now() - _LOOK_BACK)
        rows = recent.order_by().values_list("key_id").annotate(Max("occurred_at"))
        keys_used(dict(rows))
