from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client

from controlplane.portal.playground_key import LIFETIME
from controlplane.portal.tests.conftest import House
from tenants import selectors
from tenants.models import ApiKey, Scope
from tenants.scope import organization_scope

pytestmark = pytest.mark.django_db


def minted(house: House) -> list[ApiKey]:
    with organization_scope(house.organization.id):
        keys = selectors.key_list(house.organization.id).filter(created_by=house.owner)
        return list(keys.order_by("id"))


def test_the_browsers_key_is_for_inference_and_lives_an_hour(house: House, owner: Client) -> None:
    answer = owner.post(house.address("playground/key/"), {"model": "support"})
    (key,) = minted(house)
    assert key.scopes == [Scope.INFERENCE]
    assert key.project_id == house.deployment.project_id
    assert key.expires_at is not None
    assert abs(key.expires_at - key.created_at - LIFETIME).total_seconds() < 5
    assert answer.json()["expires_at"] == key.expires_at.timestamp()
    assert "no-store" in answer.headers["Cache-Control"]


def test_a_new_key_ends_the_one_before(house: House, owner: Client) -> None:
    for _ in range(2):
        owner.post(house.address("playground/key/"), {"model": "support"})
    first, second = minted(house)
    assert first.revoked_at is not None
    assert second.revoked_at is None


def test_other_keys_of_the_same_person_stay(house: House, owner: Client) -> None:
    owner.post(house.address("playground/key/"), {"model": "support"})
    with organization_scope(house.organization.id):
        assert selectors.key_get(house.organization.id, house.key.id).revoked_at is None


def test_used_up_playground_keys_are_not_on_the_list(house: House, owner: Client) -> None:
    for _ in range(2):
        owner.post(house.address("playground/key/"), {"model": "support"})
    listed = [key.name for key, _state in owner.get(house.address("keys/")).context["keys"]]
    assert listed == [f"Playground of {house.owner.email}", "key"]


def test_no_key_for_a_model_that_is_not_there(house: House, owner: Client) -> None:
    response = owner.post(house.address("playground/key/"), {"model": "somebody-elses"})
    assert response.status_code == 404
    assert minted(house) == []


def test_the_page_may_connect_to_the_gateway(house: House, owner: Client) -> None:
    response = owner.get(house.address("playground/"))
    policy = response.headers["Content-Security-Policy"]
    connect = next(part for part in policy.split("; ") if part.startswith("connect-src"))
    assert settings.TESSERA_GATEWAY_URL.rstrip("/") in connect.split()
    assert "unsafe" not in policy
