"""Whose rows this transaction may see: the second wall behind the scope argument of every selector.

PostgreSQL's policies (``tenants/rls.py``) read two settings that live as long as a transaction.
Without a scope no tenant's row is visible at all. A scope opens a transaction, so nothing may wait
for the network inside one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import connection, transaction

_READ = "SELECT current_setting('app.organization_id', true), current_setting('app.platform', true)"
_WRITE = "SELECT set_config('app.organization_id', %s, true), set_config('app.platform', %s, true)"


@contextmanager
def organization_scope(organization_id: UUID) -> Iterator[None]:
    """Rows of one organization, and of no other, are visible and writable inside."""
    with _scope(str(organization_id), "off"):
        yield


@contextmanager
def platform_scope() -> Iterator[None]:
    """Every organization's rows are visible inside: operators, reconcile, and finding out who
    somebody is.
    """
    with _scope("", "on"):
        yield


@contextmanager
def _scope(organization_id: str, platform: str) -> Iterator[None]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            before = cursor.execute(_READ).fetchone()
            cursor.execute(_WRITE, [organization_id, platform])
        yield
        # A scope that raises is rolled back to its savepoint, and the settings with it.
        with connection.cursor() as cursor:
            cursor.execute(_WRITE, [value or "" for value in before])
