from __future__ import annotations

import os
from datetime import timedelta

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.utils import ProgrammingError
from django.utils import timezone
from rest_framework.test import APIClient

from billing.models import Price
from billing.selectors import price_at
from billing.services import price_set
from kernel.errors import Forbidden, Invalid
from tenants.models import AuditEvent, Role, Scope
from tenants.scope import platform_scope
from tenants.tests.factories import SYSTEM, caller_of, make_key, make_organization

pytestmark = pytest.mark.django_db


def make_price(base: str = "tiny", nano: int = 100, **changes: object) -> Price:
    rates = {"input_nano": nano, "cached_input_nano": nano // 10, "output_nano": 4 * nano}
    return price_set(base, caller=SYSTEM, **{**rates, **changes})  # type: ignore[arg-type]


def test_a_correction_is_a_new_version_and_the_old_one_stays() -> None:
    first = make_price(nano=100)
    second = make_price(nano=200)
    assert price_at("tiny", timezone.now()) == second
    assert price_at("tiny", second.effective_from - timedelta(microseconds=1)) == first
    assert price_at("tiny", first.effective_from - timedelta(microseconds=1)) is None
    assert price_at("other", timezone.now()) is None


def test_of_two_that_begin_together_the_later_row_counts() -> None:
    instant = timezone.now() + timedelta(hours=1)
    make_price(nano=1, effective_from=instant)
    second = make_price(nano=2, effective_from=instant)
    assert price_at("tiny", instant) == second


def test_nobody_but_operators_and_nothing_in_the_past() -> None:
    owner = caller_of(make_organization(), Role.OWNER)
    with pytest.raises(Forbidden):
        price_set("tiny", caller=owner, input_nano=1, cached_input_nano=1, output_nano=1)
    with pytest.raises(Invalid):
        make_price(effective_from=timezone.now() - timedelta(seconds=1))
    for nano in (-1, 10**9 + 1):
        with pytest.raises(Invalid):
            make_price(output_nano=nano)


def test_who_set_it_is_on_record() -> None:
    price = make_price()
    with platform_scope():
        event = AuditEvent.objects.get(verb="price.set")
    assert (event.target_id, event.detail["output_nano"]) == (str(price.id), 400)
    assert (event.actor_label, price.created_by) == ("test", "test")


@pytest.mark.parametrize("change", ["UPDATE price SET input_nano = 0", "DELETE FROM price"])
def test_a_price_cannot_be_changed(change: str) -> None:
    make_price()
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(change)


def test_the_database_itself_refuses_an_absurd_price() -> None:
    with pytest.raises(IntegrityError, match="price_is_a_rate"), transaction.atomic():
        Price.objects.create(
            base="tiny",
            effective_from=timezone.now(),
            input_nano=-1,
            cached_input_nano=0,
            output_nano=0,
            created_by="x",
        )


@pytest.mark.django_db(transaction=True)
def test_not_even_the_owner_changes_a_price() -> None:
    make_price()
    with (
        psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"]) as owner,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="only ever added"),
    ):
        owner.execute("UPDATE price SET input_nano = 0")


def test_customers_read_what_a_token_costs() -> None:
    make_price("small", nano=1)
    make_price("tiny", nano=100)
    price = make_price("tiny", nano=150)
    client = APIClient()
    secret = make_key(make_organization(), Scope.USAGE_READ).secret
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    items = client.get("/api/v1/prices").json()["items"]
    assert [item["base_model"] for item in items] == ["small", "tiny"]
    assert items[1]["version"] == str(price.id)
    assert items[1]["usd_per_million_tokens"] == {
        "input": "0.15",
        "cached_input": "0.015",
        "output": "0.60",
    }
