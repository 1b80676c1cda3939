"""Rows for tests, made by the services that make them in the product."""

from __future__ import annotations

from itertools import count

from tenants.access import Caller
from tenants.models import Membership, Organization, Role, Scope, User
from tenants.scope import organization_scope
from tenants.services import NewKey, key_create, organization_create

SYSTEM = Caller.system("test")
PASSWORD = "correct horse battery staple"
_numbers = count(1)


def make_user(email: str = "", *, password: str | None = None) -> User:
    return User.objects.create_user(email or f"user{next(_numbers)}@example.com", password)


def make_organization(slug: str = "", *, owner: User | None = None) -> Organization:
    slug = slug or f"org-{next(_numbers)}"
    return organization_create(SYSTEM, name=slug.title(), slug=slug, owner=owner or make_user())


def make_member(organization: Organization, role: Role, user: User | None = None) -> Membership:
    with organization_scope(organization.id):
        return Membership.objects.create(
            organization=organization, user=user or make_user(), role=role
        )


def make_key(organization: Organization, *scopes: Scope, models: list[str] | None = None) -> NewKey:
    return key_create(
        organization.id,
        caller=SYSTEM,
        name="key",
        scopes=list(scopes or (Scope.INFERENCE,)),
        models=models,
    )


def caller_of(organization: Organization, role: Role) -> Caller:
    """A new member with this role, as a caller."""
    member = make_member(organization, role)
    return Caller.member(member.user, organization_id=organization.id, role=role, address=None)
