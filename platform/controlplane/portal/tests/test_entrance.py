from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import Settings

from controlplane.portal.tests.conftest import House, signed_in
from controlplane.portal.themes import THEME_COOKIE
from tenants.models import User
from tenants.tests.factories import PASSWORD, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def with_password(house: House) -> User:
    house.owner.set_password(PASSWORD)
    house.owner.save()
    return house.owner


def test_signing_in_by_address_and_password(house: House, with_password: User) -> None:
    client = Client()
    form = {"login": with_password.email, "password": PASSWORD}
    assert client.post("/accounts/login/", form).headers["Location"] == "/"
    assert client.get(house.address("")).status_code == 200


def test_a_wrong_password_says_nothing_about_the_account(with_password: User) -> None:
    said = []
    for email in (with_password.email, "nobody@acme.example"):
        page = Client().post("/accounts/login/", {"login": email, "password": "wrong"})
        assert page.status_code == 200
        said.append(list(page.context["form"].non_field_errors()))
    assert said[0] == said[1]
    assert said[0]


def test_signing_in_leads_where_one_wanted_to_go(house: House, with_password: User) -> None:
    wanted = house.address("usage/")
    client = Client()
    page = client.get(wanted, follow=True)
    form = {"login": with_password.email, "password": PASSWORD, "next": wanted}
    assert f'value="{wanted}"' in page.content.decode()
    assert client.post("/accounts/login/", form).headers["Location"] == wanted


def test_signing_out_is_a_post(house: House, owner: Client) -> None:
    assert b"Sign out?" in owner.get("/accounts/logout/").content
    owner.post("/accounts/logout/")
    assert owner.get(house.address("")).status_code == 302


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_colour_scheme_is_there_from_the_first_paint(
    house: House, owner: Client, theme: str
) -> None:
    there = house.address("keys/")
    answer = owner.post("/preferences/theme/", {"theme": theme, "next": there})
    assert answer.headers["Location"] == there
    assert f'data-theme="{theme}"' in owner.get(there).content.decode()
    owner.post("/preferences/theme/", {"theme": "", "next": there})
    assert "data-theme=" not in owner.get(there).content.decode()


def test_a_scheme_nobody_offered_is_not_kept(owner: Client) -> None:
    owner.post("/preferences/theme/", {"theme": '"><script>', "next": "/"})
    owner.cookies[THEME_COOKIE] = '"><script>'
    assert "<script>" not in owner.get("/accounts/logout/").content.decode().split("<head>")[0]


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:x"])
def test_the_way_back_stays_on_this_site(owner: Client, elsewhere: str) -> None:
    answer = owner.post("/preferences/theme/", {"theme": "dark", "next": elsewhere})
    assert answer.headers["Location"] == "/"


def test_where_signing_up_is_open_one_founds_an_organization(settings: Settings) -> None:
    settings.TESSERA_SIGNUP = True
    assert b"Sign up" in Client().get("/accounts/login/").content
    client = signed_in(make_user())
    assert b"New organization" in client.get("/").content
    taken = client.post("/organizations/new/", {"name": "Initech", "slug": "initech"})
    assert taken.headers["Location"] == "/o/initech/"
    again = client.post("/organizations/new/", {"name": "Initech", "slug": "initech"})
    assert again.status_code == 409
    assert "taken" in again.context["form"].errors["slug"][0]


def test_elsewhere_operators_found_them(owner: Client) -> None:
    assert owner.get("/organizations/new/").status_code == 403
    response = owner.post("/organizations/new/", {"name": "Initech"})
    assert b"signup_closed" in response.content


def test_a_page_that_is_not_there_names_the_request(owner: Client) -> None:
    response = owner.get("/nowhere/")
    assert response.status_code == 404
    assert response.headers["X-Request-Id"].encode() in response.content


def test_every_page_of_the_door_has_a_language_and_no_inline_script() -> None:
    for address in ("/accounts/login/", "/accounts/password/reset/"):
        page = Client().get(address)
        assert page.status_code == 200
        assert '<html lang="en"' in page.content.decode()
        assert "<script>" not in page.content.decode()
        assert "style=" not in page.content.decode()
