from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from billing.selectors import Group, Period, usage_by
from billing.services import balance_credit
from billing.tests.factories import make_event
from controlplane.portal.tests.conftest import House, make_house, signed_in
from tenants.scope import organization_scope
from tenants.tests.factories import SYSTEM

# The shipper's role writes past the test's transaction, so the test has to commit as well.
pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime.now(UTC)


@pytest.fixture
def used(house: House) -> House:
    """Three days of two models, one of them through a second key."""
    for days_ago, model, tokens in ((0, "support", 100), (1, "support", 50), (1, "returns", 7)):
        make_event(
            occurred_at=NOW - timedelta(days=days_ago),
            organization_id=house.organization.id,
            project_id=house.deployment.project_id,
            key_id=house.key.id,
            model=model,
            input_tokens=tokens,
            cached_input_tokens=5,
            output_tokens=tokens,
        )
    return house


def signed_in_at(house: House) -> Client:
    return signed_in(house.owner)


@pytest.mark.parametrize("group", list(Group))
def test_bars_sums_and_csv_say_what_the_selector_says(used: House, group: Group) -> None:
    client = signed_in_at(used)
    page = client.get(used.address(f"usage/?days=7&group={group}"))
    lines = list(
        csv.DictReader(
            io.StringIO(
                client.get(used.address(f"usage.csv?days=7&group={group}")).content.decode()
            )
        )
    )
    period = Period.last_days(7, today=NOW.date())
    with organization_scope(used.organization.id):
        truth = usage_by(used.organization.id, groups=[Group.DAY], period=period).total
    total = truth.input_tokens + truth.output_tokens
    assert total == 314
    assert page.context["chart"].total == total
    assert sum(int(line["input_tokens"]) + int(line["output_tokens"]) for line in lines) == total
    assert sum(sums.requests for _label, sums in page.context["summary"]) == 3
    assert sum(row_total for *_rest, row_total in page.context["rows"]) == total


def test_requests_can_be_counted_instead_of_tokens(used: House) -> None:
    page = signed_in_at(used).get(used.address("usage/?measure=requests"))
    assert page.context["chart"].total == 3


def test_another_organizations_usage_is_not_in_it(used: House) -> None:
    other = make_house("globex")
    page = signed_in(other.owner).get(other.address("usage/"))
    assert page.context["used"].total.requests == 0
    assert b"Nothing was used" in page.content


@pytest.mark.parametrize("query", ["days=8", "group=colour", "measure=money", "days="])
def test_an_unknown_question_is_refused_by_name(used: House, query: str) -> None:
    response = signed_in_at(used).get(used.address(f"usage/?{query}"))
    assert response.status_code == 422
    assert query.split("=", maxsplit=1)[0].encode() in response.content


def test_the_home_page_shows_the_same_sums(used: House) -> None:
    page = signed_in_at(used).get(used.address(""))
    assert page.context["used"].total.requests == 3
    assert page.context["chart"].total == 314


def test_who_pays_in_advance_sees_the_balance(used: House) -> None:
    client, address = signed_in_at(used), used.address("usage/")
    assert client.get(address).context["balance"] is None
    balance_credit(
        used.organization.id, caller=SYSTEM, nano=12_500_000_000, reason="test", operation="test"
    )
    page = client.get(address)
    assert page.context["balance"].balance_nano == 12_500_000_000
    assert "$12.50" in page.content.decode()
