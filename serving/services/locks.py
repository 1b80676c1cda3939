"""What has to happen one at a time."""

from __future__ import annotations

from uuid import UUID

from django.db import connection

from tenants.models import Organization


def organization_lock(organization_id: UUID) -> None:
    """One writer at a time in an organization's models, until the transaction ends.

    Taken before anything else is read, so that what a rule was checked against still holds when
    the change is written. Others may go on referring to the organization.
    """
    Organization.objects.select_for_update(no_key=True).get(id=organization_id)


def object_lock(digest: str) -> None:
    """One at a time decides whether an object stays, until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [digest])
