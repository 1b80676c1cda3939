from __future__ import annotations

import pytest
from django.test import Client

from controlplane.portal.tests.conftest import House, SignIn, signed_in
from tenants import selectors
from tenants.models import Role
from tenants.scope import organization_scope

pytestmark = pytest.mark.django_db


def roles(house: House) -> dict[str, str]:
    with organization_scope(house.organization.id):
        members = selectors.member_list(house.organization.id)
        return {member.user.email: member.role for member in members}


def test_somebody_new_is_a_member_with_the_role_chosen(house: House, owner: Client) -> None:
    form = {"email": "new@acme.example", "role": "billing"}
    response = owner.post(house.address("members/"), form)
    assert response.status_code == 302
    assert roles(house)["new@acme.example"] == Role.BILLING


def test_adding_somebody_twice_is_explained_at_the_address(house: House, owner: Client) -> None:
    form = {"email": house.membership.user.email, "role": "billing"}
    response = owner.post(house.address("members/"), form)
    assert response.status_code == 409
    assert "member already" in response.context["form"].errors["email"][0]


def test_an_admin_cannot_make_an_owner(house: House, as_role: SignIn) -> None:
    form = {"email": "new@acme.example", "role": "owner"}
    assert as_role(Role.ADMIN).post(house.address("members/"), form).status_code == 422
    assert "new@acme.example" not in roles(house)


def test_a_role_is_changed(house: House, owner: Client) -> None:
    owner.post(house.address(f"members/{house.membership.id}/role/"), {"role": "developer"})
    assert roles(house)[house.membership.user.email] == Role.DEVELOPER


def test_the_last_owner_stays_and_is_told_why(house: House, owner: Client) -> None:
    with organization_scope(house.organization.id):
        own = selectors.member_list(house.organization.id).get(user=house.owner)
    page = owner.post(house.address(f"members/{own.id}/remove/"), follow=True)
    assert b"keeps at least one owner" in page.content
    assert roles(house)[house.owner.email] == Role.OWNER


def test_whoever_leaves_is_led_out(house: House) -> None:
    leaving = signed_in(house.membership.user)
    response = leaving.post(house.address(f"members/{house.membership.id}/remove/"))
    assert response.headers["Location"] == "/"
    assert house.membership.user.email not in roles(house)
