from __future__ import annotations

import pytest
from django.test import Client

from billing.models import JournalPosition, UsageEvent, UsageQuarantine
from billing.tests.factories import make_event
from tenants.models import User

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ops@example.com"))
    return client


@pytest.mark.parametrize("model", [UsageEvent, UsageQuarantine, JournalPosition])
def test_operators_look_and_do_not_touch(operator: Client, model: type) -> None:
    name = model.__name__.lower()
    assert operator.get(f"/admin/billing/{name}/").status_code == 200
    assert operator.get(f"/admin/billing/{name}/add/").status_code == 403


def test_an_event_is_found_by_its_id(operator: Client) -> None:
    event, other = make_event(), make_event()
    page = operator.get("/admin/billing/usageevent/", {"q": event["event_id"]})
    assert event["event_id"] in page.content.decode()
    assert other["event_id"] not in page.content.decode()
    detail = operator.get(f"/admin/billing/usageevent/{event['event_id']}/change/")
    assert detail.status_code == 200
    assert "support" in detail.content.decode()


def test_customers_have_no_business_there() -> None:
    client = Client()
    client.force_login(User.objects.create_user("ann@example.com"))
    assert client.get("/admin/billing/usageevent/").status_code == 302
