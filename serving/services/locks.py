"""What has to happen one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import connection

from tenants.models import Organization


def organization_lock(organization_id: UUID) -> None:
    """One writer at a time in an organization's models, until the transaction ends.

    Taken before anything else is read, so that what a rule was checked against still holds when
    the change is written. Others may go on referring to the organization.
    """
    Organization.objects.select_for_update(no_key=True).get(id=organization_id)


@contextmanager
def object_locked(digest: str) -> Iterator[None]:
    """One at a time decides whether an object stays.

    The connection holds this lock, not a transaction: meanwhile the store is asked, which may be
    far away.
    """
    _advisory("pg_advisory_lock", digest)
    try:
        yield
    finally:
        _advisory("pg_advisory_unlock", digest)


def _advisory(function: str, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [name])
