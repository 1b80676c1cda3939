"""Every REST view of every room, found through the URL table, keeps the frame's promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.permissions import IsAuthenticated
from rest_framework.test import APIClient
from rest_framework.views import APIView

from kernel.ids import uuid7
from tenants.access import ROLE_PERMISSIONS
from tenants.models import Role, Scope
from tenants.rest import OrganizationView
from tenants.tests.factories import make_key, make_member, make_organization

pytestmark = pytest.mark.django_db

METHODS = ("get", "post", "put", "patch", "delete")
# These answer before anybody is known, or decide by themselves who may ask.
WITHOUT_ORGANIZATION = {"session", "organizations", "plans", "schema", "docs", "docs/try"}


def _patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for each in resolver.url_patterns:
        path = prefix + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from _patterns(each, path)
        else:
            yield path, each


def _doors() -> list[tuple[str, Any]]:
    found = []
    for path, pattern in _patterns(get_resolver()):
        if path.startswith("api/v1/"):
            found.append((path.removeprefix("api/v1/"), getattr(pattern.callback, "cls", None)))
    return found


DOORS = [(path, view) for path, view in _doors() if path not in WITHOUT_ORGANIZATION]
CALLS = [
    (method, path, view)
    for path, view in DOORS
    for method in METHODS
    if view is not None and hasattr(view, method)
]


def _filled(path: str) -> str:
    """The path with ids that nobody has."""
    parts = []
    for part in path.split("/"):
        if not part.startswith("<"):
            parts.append(part)
        elif part.startswith("<int"):
            parts.append("1")
        else:
            parts.append(str(uuid7()))
    return "/api/v1/" + "/".join(parts)


def test_every_door_stands_in_the_frame() -> None:
    assert len(DOORS) >= 10
    outside = [path for path, view in DOORS if not issubclass(view, OrganizationView)]
    assert outside == []


@pytest.mark.parametrize(("method", "path", "view"), CALLS)
def test_every_method_names_its_permission(method: str, path: str, view: Any) -> None:
    assert method.upper() in view.permissions


@pytest.mark.parametrize(("method", "path", "view"), CALLS)
def test_nobody_is_let_in_unknown(method: str, path: str, view: Any) -> None:
    answer = getattr(APIClient(), method)(_filled(path))
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "not_authenticated"


@pytest.mark.parametrize(("method", "path", "view"), CALLS)
def test_somebody_elses_organization_does_not_exist(method: str, path: str, view: Any) -> None:
    """A24."""
    make_organization("globex")
    client = APIClient()
    client.force_login(make_member(make_organization("acme"), Role.OWNER).user)
    answer = getattr(client, method)(f"{_filled(path)}?organization=globex")
    assert answer.status_code == 404


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("method", "path", "view"), CALLS)
def test_who_lacks_the_permission_is_refused(method: str, path: str, view: Any, role: Role) -> None:
    if view.permissions[method.upper()] in ROLE_PERMISSIONS[role]:
        return
    client = APIClient()
    client.force_login(make_member(make_organization("acme"), role).user)
    path = path.replace("<str:organization>", "acme")
    assert getattr(client, method)(_filled(path)).status_code == 403


@pytest.mark.parametrize(("method", "path", "view"), CALLS)
def test_an_id_that_is_not_there_is_not_found_and_makes_nothing(
    method: str, path: str, view: Any
) -> None:
    if "<" not in path:
        return
    client = APIClient()
    client.force_login(make_member(make_organization("acme"), Role.OWNER).user)
    answer = getattr(client, method)(_filled(path))
    assert answer.status_code in {400, 404, 411, 422}


def test_views_that_say_nothing_are_closed() -> None:
    assert APIView.permission_classes == [IsAuthenticated]


def test_the_openapi_document_describes_every_door() -> None:
    client = APIClient()
    key = make_key(make_organization(), Scope.MANAGE)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key.secret}")
    answer = client.get("/api/v1/schema?format=json")
    assert answer.status_code == 200
    document = answer.json()
    described = {path.split("{")[0] for path in document["paths"]}
    assert {"/api/v1/" + path.split("<")[0] for path, _ in DOORS} <= described
    for path, operations in document["paths"].items():
        assert path.startswith("/api/v1/")
        for operation in operations.values():
            assert operation["responses"]["default"]["content"]["application/json"]["schema"]
    assert document["components"]["securitySchemes"].keys() == {"key", "cookieAuth"}


@pytest.mark.parametrize("path", ["/api/v1/docs", "/api/v1/docs/try"])
def test_the_reference_is_served_from_here(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 200
    assert "//cdn" not in answer.text
    assert "//fonts" not in answer.text
