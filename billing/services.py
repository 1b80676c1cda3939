"""Writes. Usage itself is written by the shipper, never from here."""

from __future__ import annotations

from django.db import connection

MONTHS_AHEAD = 3


def partitions_create(months_ahead: int = MONTHS_AHEAD) -> int:
    """Have a partition for this month and the following ones. The number of those that are new.

    Until a month has one its usage lies in the default partition, and moves when it gets one.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT usage_event_partitions(%s)", [months_ahead])
        (created,) = cursor.fetchone()
    return int(created)
