from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from uuid import UUID

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from billing.models import MAX_NANO, BalanceEntry
from billing.selectors import balance_entry_list, balance_of, spent_by_account
from billing.services import balance_credit
from kernel.errors import Conflict, Forbidden, Invalid, NotFound
from tenants.models import AuditEvent, Organization, Role, Scope, User
from tenants.scope import organization_scope, platform_scope
from tenants.tests.factories import SYSTEM, caller_of, make_key, make_organization

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def acme() -> Organization:
    return make_organization("acme")


def credit(organization: Organization, nano: int, operation: str) -> BalanceEntry:
    return balance_credit(
        organization.id, caller=SYSTEM, nano=nano, reason="test", operation=operation
    )


def spend(organization_id: UUID, nano: int, account: str = "") -> None:
    with psycopg.connect(os.environ["TESSERA_DATABASE_SHIPPER_URL"]) as shipper:
        shipper.execute(
            "INSERT INTO writer_spend (writer, account, organization_id, nano)"
            " VALUES (gen_random_uuid(), %s, %s, %s)",
            (account or f"org:{organization_id}", organization_id, nano),
        )


def test_a_balance_is_what_was_given_less_what_was_spent(acme: Organization) -> None:
    other = make_organization("globex")
    credit(acme, 1000, "a")
    credit(acme, -100, "b")
    credit(other, 77, "a")
    for nano in (30, 3):
        spend(acme.id, nano)
    spend(acme.id, 5, "key:k:202611")
    spend(other.id, 7)
    with organization_scope(acme.id):
        found = balance_of(acme.id)
        assert (found.credited_nano, found.spent_nano, found.balance_nano) == (900, 33, 867)
        assert spent_by_account(acme.id, ["key:k:202611", "key:x"]) == {
            "key:k:202611": 5,
            "key:x": 0,
        }
        assert [entry.nano for entry in balance_entry_list(acme.id)] == [-100, 1000]
        assert balance_of(other.id).balance_nano == 0, "the second wall"


def test_the_same_operation_again_changes_nothing(acme: Organization) -> None:
    first = credit(acme, 1000, "payment-1")
    assert credit(acme, 1000, "payment-1") == first
    with pytest.raises(Conflict):
        credit(acme, 2000, "payment-1")
    with organization_scope(acme.id):
        assert balance_of(acme.id).credited_nano == 1000
        assert AuditEvent.objects.filter(verb="balance.credit").count() == 1


def test_many_at_once_are_numbered_in_the_order_of_their_commits(acme: Organization) -> None:
    """Whoever reads on behind the highest id that was visible misses none."""
    seen: list[int] = []

    def give(number: int) -> None:
        try:
            credit(acme, 1, f"operation-{number % 12}")
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        given = [threads.submit(give, number) for number in range(24)]
        with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"], autocommit=True) as owner:
            while not all(one.done() for one in given) or len(seen) < 12:
                rows = owner.execute(
                    "SELECT id FROM balance_entry WHERE id > %s ORDER BY id",
                    (seen[-1] if seen else 0,),
                )
                seen += [id_ for (id_,) in rows]
    for one in given:
        one.result()
    with platform_scope():
        assert seen == sorted(BalanceEntry.objects.values_list("id", flat=True))
    assert len(seen) == 12


def test_what_is_refused(acme: Organization) -> None:
    with pytest.raises(Forbidden):
        balance_credit(
            acme.id, caller=caller_of(acme, Role.OWNER), nano=1, reason="x", operation="x"
        )
    with pytest.raises(NotFound):
        balance_credit(UUID(int=9), caller=SYSTEM, nano=1, reason="x", operation="x")
    credit(acme, MAX_NANO, "all")
    for nano, reason, operation in ((0, "x", "y"), (1, " ", "y"), (1, "x", ""), (1, "x", "more")):
        with pytest.raises(Invalid):
            balance_credit(acme.id, caller=SYSTEM, nano=nano, reason=reason, operation=operation)


def test_an_operator_credits_by_command_and_by_page(acme: Organization) -> None:
    out = StringIO()
    call_command("balance_credit", "acme", "25.50", "--reason", "Opening", stdout=out)
    assert "the balance is 25.50 USD" in out.getvalue()
    client = Client()
    client.force_login(User.objects.create_superuser("ops@example.com"))
    page = client.get("/admin/billing/balanceentry/add/").content.decode()
    assert "admin:" in page
    form = {
        "organization": str(acme.id),
        "amount": "-0.5",
        "reason": "Slip",
        "operation": "admin:1",
    }
    assert client.post("/admin/billing/balanceentry/add/", form).status_code == 302
    again = client.post("/admin/billing/balanceentry/add/", form)
    assert "already exists" in again.content.decode(), "a form that is sent twice credits once"
    refused = client.post("/admin/billing/balanceentry/add/", {**form, "amount": "much"})
    assert "is not an amount" in refused.content.decode()
    with organization_scope(acme.id):
        assert balance_of(acme.id).balance_nano == 25_000_000_000
        entry = BalanceEntry.objects.get(operation="admin:1")
    assert entry.actor == "ops@example.com"
    assert client.get(f"/admin/billing/balanceentry/{entry.id}/change/").status_code == 200
    assert "-0.50" in client.get("/admin/billing/balanceentry/").content.decode()
    assert client.post(f"/admin/billing/balanceentry/{entry.id}/delete/").status_code == 403
    assert client.get("/admin/billing/gatewayroster/").status_code == 200


def test_a_customer_sees_the_balance_and_its_entries(acme: Organization) -> None:
    credit(acme, 10**9, "a")
    credit(make_organization("globex"), 5, "a")
    spend(acme.id, 1)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_key(acme, Scope.USAGE_READ).secret}")
    assert client.get("/api/v1/balance").json() == {
        "balance_nano": 999_999_999,
        "credited_nano": 10**9,
        "spent_nano": 1,
        "balance_usd": "0.999999999",
    }
    [item] = client.get("/api/v1/balance/entries").json()["items"]
    assert (item["nano"], item["reason"]) == (10**9, "test")
