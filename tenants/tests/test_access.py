"""The matrix: every role at every endpoint, about its own organization and about somebody else's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from rest_framework.test import APIClient

from kernel.ids import uuid7
from tenants.access import ROLE_GRANTS, ROLE_PERMISSIONS, ROLE_SCOPES, Permission
from tenants.models import Membership, Organization, Project, Role, Scope
from tenants.scope import organization_scope
from tenants.tests.factories import make_key, make_member, make_organization

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Endpoint:
    """``{project}``, ``{member}`` and ``{key}`` stand for ids of the organization that is meant."""

    method: str
    path: str
    needs: Permission
    status: int = 200
    body: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


ENDPOINTS = [
    Endpoint("GET", "organizations/{organization}", Permission.ORGANIZATION_READ),
    Endpoint(
        "PATCH",
        "organizations/{organization}",
        Permission.ORGANIZATION_MANAGE,
        body={"name": "New name"},
    ),
    Endpoint("GET", "projects", Permission.ORGANIZATION_READ),
    Endpoint("POST", "projects", Permission.PROJECT_MANAGE, 201, {"name": "Second"}),
    Endpoint("GET", "projects/{project}", Permission.ORGANIZATION_READ),
    Endpoint("PATCH", "projects/{project}", Permission.PROJECT_MANAGE, body={"name": "Other"}),
    Endpoint("GET", "projects/{project}/limits", Permission.ORGANIZATION_READ),
    Endpoint(
        "PATCH", "projects/{project}/limits", Permission.LIMIT_MANAGE, body={"concurrency": 3}
    ),
    Endpoint("GET", "members", Permission.MEMBER_READ),
    Endpoint(
        "POST",
        "members",
        Permission.MEMBER_MANAGE,
        201,
        {"email": "new@example.com", "role": "viewer"},
    ),
    Endpoint("GET", "members/{member}", Permission.MEMBER_READ),
    Endpoint("PATCH", "members/{member}", Permission.MEMBER_MANAGE, body={"role": "developer"}),
    Endpoint("DELETE", "members/{member}", Permission.MEMBER_MANAGE, 204),
    Endpoint("GET", "keys", Permission.KEY_READ),
    Endpoint("POST", "keys", Permission.KEY_MANAGE, 201, {"name": "new", "scopes": ["inference"]}),
    Endpoint("GET", "keys/{key}", Permission.KEY_READ),
    Endpoint("DELETE", "keys/{key}", Permission.KEY_MANAGE),
    Endpoint("GET", "keys/{key}/limits", Permission.KEY_READ),
    Endpoint("PATCH", "keys/{key}/limits", Permission.LIMIT_MANAGE, body={"concurrency": 3}),
    Endpoint("POST", "keys/{key}/rotate", Permission.KEY_MANAGE, 201),
    Endpoint("GET", "audit", Permission.AUDIT_READ),
]
WITH_ID = [each for each in ENDPOINTS if "{" in each.path and "{organization}" not in each.path]


@dataclass(frozen=True)
class Place:
    """An organization with one of everything that an id can name."""

    organization: Organization
    ids: dict[str, UUID]


def _place(slug: str) -> Place:
    organization = make_organization(slug)
    member = make_member(organization, Role.VIEWER)
    key = make_key(organization, Scope.INFERENCE).key
    ids = {
        "organization": organization.id,
        "project": key.project_id,
        "member": member.id,
        "key": key.id,
    }
    return Place(organization, ids)


def _signed_in(member: Membership) -> APIClient:
    client = APIClient()
    client.force_login(member.user)
    return client


def _call(client: APIClient, endpoint: Endpoint, ids: dict[str, UUID], organization: str) -> Any:
    path = f"/api/v1/{endpoint.path.format(**ids)}?organization={organization}"
    return client.generic(
        endpoint.method, path, json.dumps(endpoint.body), content_type="application/json"
    )


def _rows_of(organization: Organization) -> dict[str, list[dict[str, Any]]]:
    """Everything that an organization has, to see whether anything of it changed."""
    with organization_scope(organization.id):
        return {
            model.__name__: list(model._default_manager.order_by("pk").values())
            for model in apps.get_app_config("tenants").get_models()
            if hasattr(model, "organization_id") or model is Organization
        }


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_a_role_may_do_in_its_own_organization_what_the_table_says(
    endpoint: Endpoint, role: Role
) -> None:
    here = _place("acme")
    client = _signed_in(make_member(here.organization, role))
    answer = _call(client, endpoint, here.ids, "acme")
    allowed = endpoint.needs in ROLE_PERMISSIONS[role]
    assert answer.status_code == (endpoint.status if allowed else 403), answer.content


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_somebody_elses_organization_is_not_found(endpoint: Endpoint, role: Role) -> None:
    """A24."""
    here, there = _place("acme"), _place("globex")
    client = _signed_in(make_member(here.organization, role))
    before = _rows_of(there.organization)
    for named in ("globex", str(there.organization.id)):
        assert _call(client, endpoint, there.ids, named).status_code == 404
    unknown = _call(client, endpoint, {name: uuid7() for name in there.ids}, "nowhere").json()
    foreign = _call(client, endpoint, there.ids, "globex").json()
    assert {**unknown["error"], "request_id": ""} == {**foreign["error"], "request_id": ""}
    assert _rows_of(there.organization) == before


@pytest.mark.parametrize("endpoint", WITH_ID, ids=str)
def test_somebody_elses_id_is_not_found(endpoint: Endpoint) -> None:
    """A24."""
    here, there = _place("acme"), _place("globex")
    client = _signed_in(make_member(here.organization, Role.OWNER))
    before = _rows_of(there.organization)
    assert _call(client, endpoint, there.ids, "acme").status_code == 404
    assert _rows_of(there.organization) == before


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_a_key_reaches_its_own_organization_only(endpoint: Endpoint) -> None:
    """A24."""
    here, there = _place("acme"), _place("globex")
    client = APIClient()
    secret = make_key(here.organization, Scope.MANAGE, Scope.INFERENCE).secret
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    before = _rows_of(there.organization)
    for named in ("globex", str(there.organization.id)):
        assert _call(client, endpoint, there.ids, named).status_code == 404
    if endpoint in WITH_ID and endpoint.needs is not Permission.MEMBER_MANAGE:
        assert _call(client, endpoint, there.ids, "").status_code == 404
    assert _rows_of(there.organization) == before


def test_a_body_that_names_somebody_elses_project_finds_nothing() -> None:
    """A24."""
    here, there = _place("acme"), _place("globex")
    client = _signed_in(make_member(here.organization, Role.OWNER))
    body = {"name": "x", "scopes": ["inference"], "project": str(there.ids["project"])}
    answer = client.post("/api/v1/keys?organization=acme", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "project")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
@pytest.mark.parametrize("scope", [Scope.INFERENCE, Scope.USAGE_READ])
def test_a_key_without_the_scope_to_manage_changes_nothing(
    endpoint: Endpoint, scope: Scope
) -> None:
    here = _place("acme")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_key(here.organization, scope).secret}")
    readable = scope is Scope.USAGE_READ and endpoint.needs is Permission.ORGANIZATION_READ
    assert _call(client, endpoint, here.ids, "").status_code == (200 if readable else 403)


def test_a_removed_member_is_out_at_the_next_request() -> None:
    organization = make_organization("acme")
    member = make_member(organization, Role.DEVELOPER)
    client = _signed_in(member)
    assert client.get("/api/v1/projects?organization=acme").status_code == 200
    with organization_scope(organization.id):
        Membership.objects.filter(id=member.id).delete()
    assert client.get("/api/v1/projects?organization=acme").status_code == 404


def test_a_person_of_several_organizations_says_which_one() -> None:
    acme, globex = make_organization("acme"), make_organization("globex")
    member = make_member(acme, Role.VIEWER)
    client = _signed_in(member)
    assert client.get("/api/v1/projects").status_code == 200
    make_member(globex, Role.OWNER, member.user)
    answer = client.get("/api/v1/projects")
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "organization"
    assert client.get("/api/v1/projects?organization=globex").status_code == 200


def test_operating_is_nobodys_role() -> None:
    assert all(Permission.OPERATE not in granted for granted in ROLE_PERMISSIONS.values())


def test_every_role_is_in_every_table() -> None:
    assert set(ROLE_PERMISSIONS) == set(ROLE_SCOPES) == set(ROLE_GRANTS) == set(Role)


def test_a_project_of_the_same_name_in_two_organizations_is_two_projects() -> None:
    pair = make_organization(), make_organization()
    found = []
    for organization in pair:
        with organization_scope(organization.id):
            found.append(Project.objects.get(slug="default").id)
    assert found[0] != found[1]
