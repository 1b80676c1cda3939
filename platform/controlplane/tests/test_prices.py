"""A price from an operator's hands to the gateways' document."""

from __future__ import annotations

import os
from datetime import timedelta
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from billing.models import Price
from billing.selectors import price_at
from controlplane.demo import CALLER, PRICE, base_register
from controlplane.engine.base import DemoBase, file_digests
from controlplane.prices import base_price_ensure, base_price_set
from controlplane.publishing import documents
from kernel.errors import NotFound
from serving.changes import CHANNEL
from serving.contracts import Price as RoutePrice
from serving.contracts import RoutesDocument
from serving.tests import factories
from serving.tests.test_catalogue import folder_of
from tenants.models import User
from tenants.scope import platform_scope
from tenants.tests.factories import SYSTEM

pytestmark = pytest.mark.django_db


def shown() -> list[RoutePrice | None]:
    """The prices of all routes, as gateways would have them now."""
    *_, routes = documents("local")
    assert isinstance(routes, RoutesDocument)
    return [route.price for route in routes.routes]


def test_a_route_has_the_newest_price_that_has_begun() -> None:
    factories.deployed(on=factories.pool(factories.base("tiny")))
    assert shown() == [None]
    base_price_set("tiny", caller=SYSTEM, input_nano=1, cached_input_nano=1, output_nano=1)
    made = base_price_set("tiny", caller=SYSTEM, input_nano=9, cached_input_nano=3, output_nano=27)
    base_price_set(
        "tiny",
        caller=SYSTEM,
        input_nano=5,
        cached_input_nano=5,
        output_nano=5,
        effective_from=timezone.now() + timedelta(days=1),
    )
    assert shown() == [RoutePrice(version=str(made.id), input=9, cached_input=3, output=27)]


def test_only_what_is_in_the_catalogue_has_a_price() -> None:
    with pytest.raises(NotFound):
        base_price_set("other", caller=SYSTEM, input_nano=1, cached_input_nano=1, output_nano=1)


def test_the_demo_prices_its_base_model_once_and_leaves_an_operators_price_alone() -> None:
    factories.base("tiny")
    base_price_ensure("tiny", caller=CALLER, **PRICE)
    base_price_ensure("tiny", caller=CALLER, input_nano=1, cached_input_nano=1, output_nano=1)
    assert [price.input_nano for price in Price.objects.all()] == [PRICE["input_nano"]]


def test_what_the_demo_registers_has_a_price(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "tiny")
    registered = base_register(DemoBase("tiny", folder, file_digests(folder)))
    found = price_at(registered.slug, timezone.now())
    assert found is not None
    assert (found.output_nano, found.created_by) == (PRICE["output_nano"], "demo")


def test_an_operator_sets_it_by_command() -> None:
    factories.base("tiny")
    out = StringIO()
    call_command("price_set", "tiny", "--input", "0.15", "--output", "0.6", stdout=out)
    [price] = Price.objects.all()
    assert (price.input_nano, price.cached_input_nano, price.output_nano) == (150, 150, 600)
    assert "0.15 USD as input" in out.getvalue()
    assert price.created_by == "price_set"


@pytest.mark.parametrize("amount", ["0.0001", "-1", "two", "1e12", "NaN"])
def test_an_amount_that_is_none_is_refused_in_a_sentence(amount: str) -> None:
    factories.base("tiny")
    err = StringIO()
    with pytest.raises(SystemExit):
        call_command("price_set", "tiny", f"--input={amount}", "--output", "1", stderr=err)
    assert err.getvalue().strip()
    assert not Price.objects.exists()


def test_an_operator_sets_it_on_the_admin_site() -> None:
    with platform_scope():
        base = factories.base("tiny")
    client = Client()
    client.force_login(User.objects.create_superuser("ops@example.com"))
    form = {"base": str(base.pk), "input_nano": "0.5", "cached_input_nano": "0.25"}
    address = "/admin/billing/price/"
    refused = client.post(f"{address}add/", {**form, "output_nano": "a lot"})
    assert "is not an amount" in refused.content.decode()
    assert client.post(f"{address}add/", {**form, "output_nano": "2"}).status_code == 302
    [price] = Price.objects.all()
    assert (price.input_nano, price.cached_input_nano, price.output_nano) == (500, 250, 2000)
    assert price.created_by == "ops@example.com"
    assert "0.25" in client.get(address).content.decode()
    assert client.get(f"{address}{price.id}/change/").status_code == 200
    assert client.post(f"{address}{price.id}/delete/").status_code == 403


@pytest.mark.django_db(transaction=True)
def test_the_watcher_hears_of_a_new_price() -> None:
    factories.base("tiny")
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        base_price_set("tiny", caller=SYSTEM, input_nano=1, cached_input_nano=1, output_nano=1)
        assert [one.channel for one in listener.notifies(timeout=5, stop_after=1)] == [CHANNEL]
