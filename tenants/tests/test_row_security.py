"""The second wall with the first one off: raw SQL without any filter, as the application's role."""

from __future__ import annotations

import os
from uuid import UUID

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from pytest_django import Settings

from kernel.ids import uuid7
from kernel.keys import key_mac
from tenants.models import ApiKey, Organization, Project, Quota, Role, Scope
from tenants.scope import organization_scope, platform_scope
from tenants.tests.factories import make_key, make_member, make_organization

pytestmark = pytest.mark.django_db

# Tables that no tenant owns a row of, and why they are readable without a scope.
SHARED = {
    "tenants_user": "a person may belong to several organizations",
    "tenants_plan": "plans belong to the installation",
}


def _tables() -> list[tuple[str, str, bool, bool]]:
    """Every table with a column that names an organization: name, that column, enabled, forced."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.relname, a.attname, c.relrowsecurity, c.relforcerowsecurity
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
              AND NOT c.relispartition AND NOT a.attisdropped
              AND (a.attname = 'organization_id'
                   OR c.relname = 'tenants_organization' AND a.attname = 'id')
            """
        )
        return [(str(n), str(a), bool(e), bool(f)) for n, a, e, f in cursor.fetchall()]


def _organizations_in(table: str, column: str) -> set[UUID | None]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT {column} FROM {table}")
        return {row[0] for row in cursor.fetchall()}


def _two_full_organizations() -> tuple[Organization, Organization]:
    pair = make_organization("acme"), make_organization("globex")
    for organization in pair:
        make_key(organization)
        make_member(organization, Role.VIEWER)
        with organization_scope(organization.id):
            Quota.objects.create(organization=organization, concurrency=1)
    return pair


def test_every_table_with_tenants_rows_is_behind_the_wall() -> None:
    tables = _tables()
    assert {"tenants_organization", "tenants_apikey", "tenants_auditevent"} <= {
        t[0] for t in tables
    }
    assert [name for name, _, enabled, forced in tables if not (enabled and forced)] == []


def test_every_other_table_of_ours_is_shared_on_purpose() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'tenants\\_%%'"
            " AND NOT relrowsecurity"
        )
        open_tables = {row[0] for row in cursor.fetchall()}
    assert {name for name in open_tables if not name.startswith("tenants_user_")} == set(SHARED)


def test_the_application_does_not_own_what_binds_it() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_user, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        assert cursor.fetchone() == ("tessera_app", False, False)
        cursor.execute("SELECT count(*) FROM pg_class WHERE relowner = 'tessera_app'::regrole")
        assert cursor.fetchone() == (0,)


def test_without_a_scope_no_table_shows_a_row() -> None:
    _two_full_organizations()
    assert {table: _organizations_in(table, column) for table, column, *_ in _tables()} == {
        table: set() for table, *_ in _tables()
    }


def test_a_scope_shows_only_its_own_rows_in_every_table() -> None:
    acme, _ = _two_full_organizations()
    with organization_scope(acme.id):
        seen = {table: _organizations_in(table, column) for table, column, *_ in _tables()}
    assert all(rows <= {acme.id} for rows in seen.values())
    for table in ("organization", "project", "membership", "apikey", "quota", "auditevent"):
        assert seen[f"tenants_{table}"] == {acme.id}


def test_foreign_rows_can_neither_be_changed_nor_added() -> None:
    acme, globex = _two_full_organizations()
    with organization_scope(acme.id):
        assert Project.objects.filter(organization=globex).update(name="mine") == 0
        assert ApiKey.objects.filter(organization=globex).delete()[0] == 0
        with pytest.raises(DatabaseError), transaction.atomic():
            Project.objects.create(organization=globex, name="x", slug="x")
        with pytest.raises(DatabaseError), transaction.atomic():
            Project.objects.filter(organization=acme).update(organization=globex)


def test_a_key_cannot_point_at_somebody_elses_project() -> None:
    acme, globex = _two_full_organizations()
    key = make_key(acme).key
    with platform_scope():
        foreign = Project.objects.get(organization=globex)
        with pytest.raises(IntegrityError), transaction.atomic():
            ApiKey.objects.filter(id=key.id).update(project=foreign)


def test_an_unknown_organization_is_an_empty_scope() -> None:
    _two_full_organizations()
    with organization_scope(uuid7()):
        assert Organization.objects.count() == 0


def test_a_scope_that_fails_takes_its_settings_along() -> None:
    acme, _ = _two_full_organizations()
    with organization_scope(acme.id):
        with pytest.raises(RuntimeError), platform_scope():
            raise RuntimeError
        assert Organization.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_nothing_of_a_scope_outlives_its_transaction() -> None:
    acme, _ = _two_full_organizations()
    with organization_scope(acme.id):
        assert Organization.objects.count() == 1
    assert Organization.objects.count() == 0


@pytest.mark.parametrize("change", ["UPDATE {} SET verb = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_audit_record_cannot_be_changed(change: str) -> None:
    make_organization()
    statement = change.format("tenants_auditevent")
    with pytest.raises(DatabaseError), platform_scope(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", ["UPDATE {} SET verb = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_audit_record_refuses_even_its_owner(change: str, postgres: str) -> None:
    make_organization()
    with psycopg.connect(postgres) as owner:
        owner.execute("SET LOCAL app.platform = 'on'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only ever added"):
            owner.execute(change.format("tenants_auditevent"))


def _as_gateway() -> psycopg.Connection:
    return psycopg.connect(os.environ["TESSERA_DATABASE_GATEWAY_URL"], autocommit=True)


@pytest.mark.django_db(transaction=True)
def test_the_gateway_learns_who_is_behind_a_key(settings: Settings) -> None:
    organization = make_organization()
    made = make_key(organization, Scope.INFERENCE, models=["support"])
    mac = key_mac(bytes.fromhex(settings.TESSERA_KEY_PEPPER), made.secret)
    with _as_gateway() as gateway:
        cursor = gateway.execute("SELECT * FROM tessera_principal(%s)", [mac])
        assert cursor.description is not None
        row = dict(zip([c.name for c in cursor.description], cursor.fetchone() or (), strict=True))
        nobody = gateway.execute("SELECT * FROM tessera_principal(%s)", [b"\0" * 32]).fetchall()
    assert row == {
        "key_id": str(made.key.id),
        "organization": str(organization.id),
        "project": str(made.key.project_id),
        "scopes": ["inference"],
        "models": ["support"],
        "environment": "live",
        "version": 3,
        "active": True,
        "expires_at": None,
    }
    assert nobody == []


@pytest.mark.django_db(transaction=True)
def test_the_gateway_learns_the_limits_of_everybody_whom_a_call_passes(settings: Settings) -> None:
    organization = make_organization()
    made = make_key(organization)
    with organization_scope(organization.id):
        Quota.objects.create(organization=organization, concurrency=7, budget_nano=10**12)
        Quota.objects.create(
            organization=organization, project=made.key.project, requests_per_minute=0
        )
        ApiKey.objects.filter(id=made.key.id).update(budget_nano=5)
    other = make_organization()  # whose quota is not ours
    with organization_scope(other.id):
        Quota.objects.create(organization=other, concurrency=1)
    mac = key_mac(bytes.fromhex(settings.TESSERA_KEY_PEPPER), made.secret)
    with _as_gateway() as gateway:
        found = gateway.execute(
            "SELECT tier, weight, billing, limits FROM tessera_principal_2(%s)", [mac]
        ).fetchall()
    (tier, weight, billing, limits) = found[0]
    plan = organization.plan
    assert len(found) == 1
    assert (tier, weight, billing) == ("standard", 1, "postpaid")
    nothing = dict.fromkeys(
        ("requests_per_minute", "tokens_per_minute", "concurrency", "budget_nano")
    )
    assert limits == [
        {
            "scope": "organization",
            "id": str(organization.id),
            "requests_per_minute": plan.requests_per_minute,
            "tokens_per_minute": plan.tokens_per_minute,
            "concurrency": 7,
            "budget_nano": 10**12,
        },
        # 0 would mean nothing at all, and who reads it may divide by it.
        {"scope": "project", "id": str(made.key.project_id), **nothing, "requests_per_minute": 1},
        {"scope": "key", "id": str(made.key.id), **nothing, "budget_nano": 5},
    ]


@pytest.mark.django_db(transaction=True)
def test_the_gateway_can_read_nothing_else() -> None:
    make_key(make_organization())
    with _as_gateway() as gateway:
        tables = gateway.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'S')"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                row = gateway.execute(
                    "SELECT has_table_privilege(%s, %s)", [f"public.{table}", privilege]
                ).fetchone()
                assert row == (False,), (table, privilege)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            gateway.execute("SELECT * FROM tenants_apikey")
        functions = gateway.execute(
            "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname = 'public' AND has_function_privilege(p.oid, 'EXECUTE')"
            " AND p.prosecdef"
        ).fetchall()
    assert {name for (name,) in functions} == {
        "tessera_account_base",
        "tessera_balance_entries",
        "tessera_balance_old_entry",
        "tessera_closed_totals",
        "tessera_idempotency_claim",
        "tessera_idempotency_release",
        "tessera_principal",
        "tessera_principal_2",
        "tessera_roster",
        "tessera_roster_enter",
    }
