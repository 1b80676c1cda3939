from __future__ import annotations

from typing import Any

import pytest
import redis
from django.test import Client

from controlplane.portal.tests.conftest import House, SignIn
from tenants import selectors
from tenants.models import ApiKey, Role
from tenants.scope import organization_scope
from tenants.services import project_limits_set
from tenants.tests.factories import SYSTEM

pytestmark = pytest.mark.django_db

EMPTY = {
    "requests_per_minute": "",
    "tokens_per_minute": "",
    "concurrency": "",
    "budget_nano": "",
}


@pytest.fixture(autouse=True)
def live(redis_client: redis.Redis) -> None:
    """Redis answers."""


def form_address(house: House, of: str = "key") -> str:
    subject = house.key.id if of == "key" else house.key.project_id
    return house.address(f"limits/{of}/{subject}/")


def key(house: House) -> ApiKey:
    with organization_scope(house.organization.id):
        return selectors.key_get(house.organization.id, house.key.id)


def test_what_is_filled_in_is_what_the_key_is_held_to(house: House, owner: Client) -> None:
    given = {**EMPTY, "concurrency": "3", "budget_nano": "$1,250.50"}
    answer = owner.post(form_address(house), given)
    assert answer.status_code == 302
    assert (key(house).concurrency, key(house).budget_nano) == (3, 1_250_500_000_000)
    page = owner.get(house.address("limits/")).content.decode()
    assert "$1,250.50 left" in page
    again: Any = owner.get(form_address(house))
    assert again.context["form"].initial["budget_nano"] == "1250.50"


def test_an_emptied_field_takes_the_limit_away(house: House, owner: Client) -> None:
    owner.post(form_address(house), {**EMPTY, "concurrency": "3"})
    owner.post(form_address(house), EMPTY)
    assert key(house).concurrency is None


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("requests_per_minute", "3001", "The organization allows 3,000 requests a minute;"),
        ("concurrency", "8", "Its project allows 7 calls at a time;"),
        ("tokens_per_minute", "many", "Enter a whole number."),
        ("concurrency", "0", "This limit is 1 calls at a time to"),
        ("budget_nano", "ten", "is not an amount in dollars"),
        ("budget_nano", "-5", "This limit is 0.00 US dollars"),
    ],
)
def test_a_refusal_stands_beside_its_field(
    house: House, owner: Client, field: str, value: str, sentence: str
) -> None:
    project = house.key.project_id
    project_limits_set(house.organization.id, project, caller=SYSTEM, limits={"concurrency": 7})
    answer: Any = owner.post(form_address(house), {**EMPTY, field: value})
    assert answer.status_code == 422
    errors = answer.context["form"].errors
    assert list(errors) == [field]
    assert sentence in errors[field][0]
    assert f'id="id_{field}_error"' in answer.content.decode()


def test_a_projects_limits_are_set_the_same_way(house: House, owner: Client) -> None:
    assert (
        owner.post(form_address(house, "project"), {**EMPTY, "budget_nano": "5"}).status_code == 302
    )
    page = owner.get(house.address("limits/")).content.decode()
    assert "$5.00 left" in page


def test_who_may_not_set_limits_sees_them(house: House, as_role: SignIn) -> None:
    page = as_role(Role.DEVELOPER).get(house.address("limits/")).content.decode()
    assert "3,000" in page
    assert "Set limits" not in page


def test_a_key_is_chosen_by_name(house: House, owner: Client) -> None:
    page = owner.get(house.address("limits/")).content.decode()
    assert f'<option value="{house.key.id}">' in page
    chosen = owner.get(house.address("limits/key/"), {"key": str(house.key.id)})
    assert chosen.headers["Location"] == form_address(house)
    nothing = owner.get(house.address("limits/key/"), {"key": "x"})
    assert nothing.headers["Location"] == house.address("limits/")


def test_the_meters_come_alone_for_a_page_that_looks_again(house: House, owner: Client) -> None:
    page = owner.get(house.address("limits/now/")).content.decode()
    assert 'id="limits-now"' in page
    assert "<html" not in page


def test_the_keys_page_leads_to_a_keys_limits(house: House, owner: Client, as_role: SignIn) -> None:
    assert form_address(house) in owner.get(house.address("keys/")).content.decode()
    developer = as_role(Role.DEVELOPER).get(house.address("keys/")).content.decode()
    assert form_address(house) not in developer
