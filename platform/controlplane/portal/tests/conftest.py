"""An organization with everything in it, and people of every role to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext

from controlplane.portal.tests.browsing import CHROMIUM, chromium
from serving.models import Artifact, BaseModel, Deployment, DeploymentStatus
from serving.tests import factories as serving
from tenants.models import ApiKey, Membership, Organization, Role, User
from tenants.scope import organization_scope
from tenants.tests.factories import make_key, make_member, make_organization, make_user

SignIn = Callable[[Role], Client]
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """One organization and a row of everything a page may be about."""

    organization: Organization
    owner: User
    base: BaseModel
    artifact: Artifact
    deployment: Deployment
    key: ApiKey
    membership: Membership

    def address(self, path: str) -> str:
        return f"/o/{self.organization.slug}/{path}"


@pytest.fixture
def house() -> House:
    return make_house("acme")


def make_house(slug: str) -> House:
    owner = make_user(f"owner@{slug}.example")
    organization = make_organization(slug, owner=owner)
    base = BaseModel.objects.filter(slug="tiny").first() or serving.base("tiny")
    artifact = serving.artifact(organization, base)
    deployment = serving.deployment(serving.version(artifact, name="support-desk"), slug="support")
    with organization_scope(organization.id):
        Deployment.objects.update(status=DeploymentStatus.READY, reason="Proven on 1 of 1 engines.")
    return House(
        organization=organization,
        owner=owner,
        base=base,
        artifact=artifact,
        deployment=deployment,
        key=make_key(organization).key,
        membership=make_member(organization, Role.VIEWER),
    )


@pytest.fixture
def as_role(house: House) -> SignIn:
    """A signed-in client of a new member with this role."""

    def sign_in(role: Role) -> Client:
        return signed_in(make_member(house.organization, role).user)

    return sign_in


@pytest.fixture
def owner(house: House) -> Client:
    return signed_in(house.owner)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(
            f"No Chromium at {CHROMIUM}: install Debian's `chromium`, or name it in CHROMIUM."
        )
    with pytest.MonkeyPatch.context() as patch, chromium() as running:
        # Playwright keeps an event loop in this thread, which Django would take for async code.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        yield running


def let_in(context: BrowserContext, client: Client, url: str) -> None:
    """Give a browser the client's session."""
    name = settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": url}])
