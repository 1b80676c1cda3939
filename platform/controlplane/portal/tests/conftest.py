"""An organization with everything in it, and people of every role to look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from django.test import Client

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
