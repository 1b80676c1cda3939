from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from tenants.models import Role, Scope
from tenants.tests.factories import (
    PASSWORD,
    make_key,
    make_member,
    make_organization,
    make_user,
)

pytestmark = pytest.mark.django_db


def _with_key(secret: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def test_a_management_key_implies_its_organization() -> None:
    organization = make_organization("acme")
    client = _with_key(make_key(organization, Scope.MANAGE, Scope.INFERENCE).secret)
    answer = client.get("/api/v1/organizations")
    assert answer.status_code == 200, answer.content
    assert [each["slug"] for each in answer.json()] == ["acme"]
    assert client.get("/api/v1/organizations/acme").json()["plan"] == "starter"
    assert client.get("/api/v1/projects").json()["items"][0]["slug"] == "default"
    made = client.post("/api/v1/keys", {"name": "new", "scopes": ["inference"]})
    assert made.status_code == 201, made.content


def test_sign_in() -> None:
    user = make_user("ann@example.com", password=PASSWORD)
    make_organization("acme", owner=user)
    client = APIClient(enforce_csrf_checks=True)
    token = client.get("/api/v1/session").json()["csrf_token"]
    given = {"email": "ann@example.com", "password": PASSWORD}
    assert client.post("/api/v1/session", given).status_code == 403
    answer = client.post("/api/v1/session", given, headers={"X-CSRFToken": token})
    assert answer.status_code == 200, answer.content
    assert client.get("/api/v1/members").status_code == 200


def test_schema() -> None:
    assert APIClient().get("/api/v1/schema").status_code == 200
