from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.portal.tests.conftest import House, SignIn
from kernel.keys import key_is_wellformed
from tenants import selectors
from tenants.models import ApiKey, Role, Scope
from tenants.scope import organization_scope

pytestmark = pytest.mark.django_db


def form(house: House, **changes: Any) -> dict[str, Any]:
    with organization_scope(house.organization.id):
        project = selectors.project_default(house.organization.id)
    return {
        "name": "Website",
        "project": str(project.id),
        "scopes": ["inference"],
        "environment": "live",
        "expires": "",
    } | changes


def keys(house: House) -> list[ApiKey]:
    with organization_scope(house.organization.id):
        return list(selectors.key_list(house.organization.id))


def test_a_new_key_is_shown_once_with_a_call_that_names_a_model(
    house: House, owner: Client
) -> None:
    response = owner.post(house.address("keys/"), form(house))
    secret = response.context["secret"]
    text = response.content.decode()
    assert key_is_wellformed(secret)
    assert secret in text
    assert "&quot;model&quot;: &quot;support&quot;" in text
    assert "no-store" in response.headers["Cache-Control"]
    assert secret not in owner.get(house.address("keys/")).content.decode()


def test_what_was_chosen_is_what_the_key_has(house: House, owner: Client) -> None:
    chosen = form(house, models=["support"], expires="30", environment="test")
    owner.post(house.address("keys/"), chosen)
    made = keys(house)[0]
    assert (made.name, made.models, made.environment) == ("Website", ["support"], "test")
    assert made.expires_at is not None
    assert made.expires_at - timezone.now() == pytest.approx(
        timedelta(days=30), abs=timedelta(minutes=1)
    )


def test_a_developer_is_not_offered_what_a_developer_cannot_pass_on(
    house: House, as_role: SignIn
) -> None:
    developer = as_role(Role.DEVELOPER)
    assert 'value="manage"' not in developer.get(house.address("keys/")).content.decode()
    refused = developer.post(house.address("keys/"), form(house, scopes=[Scope.MANAGE.value]))
    assert refused.status_code == 422
    assert len(keys(house)) == 1


@pytest.mark.parametrize("change", [{"name": ""}, {"scopes": []}, {"project": "nowhere"}])
def test_a_form_that_is_wrong_makes_no_key(
    house: House, owner: Client, change: dict[str, Any]
) -> None:
    response = owner.post(house.address("keys/"), form(house, **change))
    assert response.status_code == 422
    assert b'aria-invalid="true"' in response.content or b"_error" in response.content
    assert len(keys(house)) == 1


def test_a_name_that_the_room_refuses_is_explained_at_its_field(
    house: House, owner: Client
) -> None:
    response = owner.post(house.address("keys/"), form(house, name="tab\u200bbed"))
    assert response.status_code == 422
    assert "printable" in response.context["form"].errors["name"][0]


def test_a_revoked_key_stays_on_the_list(house: House, owner: Client) -> None:
    owner.post(house.address(f"keys/{house.key.id}/revoke/"))
    page = owner.get(house.address("keys/")).content.decode()
    assert "Revoked" in page
    assert f"revoke-{house.key.id}" not in page


def test_rotating_at_once_ends_the_old_key(house: House, owner: Client) -> None:
    response = owner.post(house.address(f"keys/{house.key.id}/rotate/"), {"overlap_seconds": "0"})
    assert key_is_wellformed(response.context["secret"])
    old = next(key for key in keys(house) if key.id == house.key.id)
    assert old.revoked_at is not None


def test_rotating_a_revoked_key_says_why_not(house: House, owner: Client) -> None:
    owner.post(house.address(f"keys/{house.key.id}/revoke/"))
    response = owner.post(house.address(f"keys/{house.key.id}/rotate/"), {"overlap_seconds": "0"})
    assert response.status_code == 409
    assert b"key_not_active" in response.content
    assert response.headers["X-Request-Id"].encode() in response.content
