"""Every page, by every role, and by people from elsewhere."""

from __future__ import annotations

import pytest
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import URLResolver

from controlplane.portal.tests.conftest import House, SignIn, make_house, signed_in
from controlplane.portal.urls import urlpatterns
from tenants.access import ROLE_PERMISSIONS, Permission
from tenants.models import Role
from tenants.tests.factories import make_user

pytestmark = pytest.mark.django_db

# Address, method, permission. Ids stand in braces and are those of the house.
PAGES = [
    ("", "GET", Permission.ORGANIZATION_READ),
    ("playground/", "GET", Permission.INFERENCE),
    ("playground/key/", "POST", Permission.INFERENCE),
    ("models/", "GET", Permission.MODEL_READ),
    ("models/new/", "GET", Permission.MODEL_MANAGE),
    ("models/{artifact.id}/", "GET", Permission.MODEL_READ),
    ("models/{artifact.id}/status/", "GET", Permission.MODEL_READ),
    ("models/{artifact.id}/delete/", "POST", Permission.MODEL_MANAGE),
    ("deployments/", "GET", Permission.MODEL_READ),
    ("deployments/table/", "GET", Permission.MODEL_READ),
    ("deployments/new/", "GET", Permission.MODEL_MANAGE),
    ("deployments/new/", "POST", Permission.MODEL_MANAGE),
    ("deployments/{deployment.id}/", "GET", Permission.MODEL_READ),
    ("deployments/{deployment.id}/status/", "GET", Permission.MODEL_READ),
    ("deployments/{deployment.id}/move/", "POST", Permission.MODEL_MANAGE),
    ("deployments/{deployment.id}/delete/", "POST", Permission.MODEL_MANAGE),
    ("keys/", "GET", Permission.KEY_READ),
    ("keys/", "POST", Permission.KEY_MANAGE),
    ("keys/{key.id}/rotate/", "POST", Permission.KEY_MANAGE),
    ("keys/{key.id}/revoke/", "POST", Permission.KEY_MANAGE),
    ("usage/", "GET", Permission.USAGE_READ),
    ("usage.csv", "GET", Permission.USAGE_READ),
    ("limits/", "GET", Permission.USAGE_READ),
    ("limits/now/", "GET", Permission.USAGE_READ),
    ("limits/key/", "GET", Permission.LIMIT_MANAGE),
    ("limits/key/{key.id}/", "GET", Permission.LIMIT_MANAGE),
    ("limits/key/{key.id}/", "POST", Permission.LIMIT_MANAGE),
    ("limits/project/{project.id}/", "GET", Permission.LIMIT_MANAGE),
    ("limits/project/{project.id}/", "POST", Permission.LIMIT_MANAGE),
    ("members/", "GET", Permission.MEMBER_READ),
    ("members/", "POST", Permission.MEMBER_MANAGE),
    ("members/{membership.id}/role/", "POST", Permission.MEMBER_MANAGE),
    ("members/{membership.id}/remove/", "POST", Permission.MEMBER_READ),
    ("audit/", "GET", Permission.AUDIT_READ),
]


def test_every_address_is_in_the_table() -> None:
    organization = next(each for each in urlpatterns if isinstance(each, URLResolver))
    known = {path.replace("{", "<uuid:").replace(".id}", ">") for path, _method, _who in PAGES}
    assert known == {str(each.pattern) for each in organization.url_patterns}


@pytest.mark.parametrize(("path", "method", "permission"), PAGES)
def test_a_page_opens_for_the_roles_that_may_and_for_no_other(
    house: House, as_role: SignIn, path: str, method: str, permission: Permission
) -> None:
    """Those that may not come first: what a page does for the others changes the rows."""
    for role in sorted(Role, key=lambda role: permission in ROLE_PERMISSIONS[role]):
        status = ask(as_role(role), house, path, method).status_code
        assert (status != 403) == (permission in ROLE_PERMISSIONS[role]), role
        assert status < 500, role


@pytest.mark.parametrize(("path", "method", "permission"), PAGES)
def test_another_organizations_page_does_not_exist(
    house: House, path: str, method: str, permission: Permission
) -> None:
    stranger = signed_in(make_house("globex").owner)
    assert ask(stranger, house, path, method).status_code == 404


@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path, method, _permission in PAGES if "{" in path],
)
def test_another_organizations_rows_do_not_exist_under_ones_own(
    house: House, path: str, method: str
) -> None:
    """The second half of an address is as foreign as the first."""
    other = make_house("globex")
    address = f"/o/{other.organization.slug}/" + path.format(**_rows(house))
    client = signed_in(other.owner)
    form = _FORM | {"version": str(other.deployment.version_id)}
    response = client.post(address, form) if method == "POST" else client.get(address)
    gone_to_list = response.status_code == 200 and "HX-Redirect" in response.headers
    said_so = response.status_code == 302 and path.startswith("members/")
    assert response.status_code == 404 or gone_to_list or said_so


@pytest.mark.parametrize(("path", "method", "permission"), PAGES)
def test_nobody_sees_anything_without_signing_in(
    house: House, path: str, method: str, permission: Permission
) -> None:
    response = ask(Client(), house, path, method)
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/accounts/login/")


def test_whoever_belongs_nowhere_is_told_what_to_do() -> None:
    response = signed_in(make_user()).get("/")
    assert response.status_code == 200
    assert b"belong to no organization" in response.content


def test_the_start_page_leads_to_ones_organization(house: House, owner: Client) -> None:
    assert owner.get("/").headers["Location"] == house.address("")


_FORM = {"model": "support", "overlap_seconds": "0", "role": "viewer"}


def ask(client: Client, house: House, path: str, method: str) -> HttpResponseBase:
    address = house.address(path.format(**_rows(house)))
    form = _FORM | {"version": str(house.deployment.version_id)}
    return client.post(address, form) if method == "POST" else client.get(address)


def _rows(house: House) -> dict[str, object]:
    return {
        "artifact": house.artifact,
        "deployment": house.deployment,
        "key": house.key,
        "project": house.key.project,
        "membership": house.membership,
    }
