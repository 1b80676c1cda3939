"""Who is looking at a page: the member, their organization, and what they may do there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane.api import error_body
from controlplane.portal.navigation import Section, sections_for
from kernel.errors import DomainError, NotFound
from tenants import selectors
from tenants.access import Caller, Permission
from tenants.models import Organization, Role, User
from tenants.scope import organization_scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person in one organization; ``organizations`` are all they may switch to."""

    user: User
    caller: Caller
    organization: Organization
    role: Role
    organizations: tuple[Organization, ...]

    @property
    def role_label(self) -> str:
        return str(self.role.label)

    @property
    def may_found(self) -> bool:
        return may_found(self.user)

    @property
    def navigation(self) -> tuple[Section, ...]:
        return sections_for(self.caller)


View = Callable[..., HttpResponse]


def member_page(permission: Permission, *, scoped: bool = True) -> Callable[[View], View]:
    """A page of one organization, for those of its members who have ``permission``.

    To anybody else the organization does not exist. The view takes the request, the ``Member`` and
    what its address holds, and runs in the organization's scope, which is a transaction: a refusal
    leaves nothing behind and becomes a page that says it. A view that works on files as well takes
    ``scoped=False``; the services and it open short scopes themselves.
    """

    def wrap(view: View) -> View:
        @login_required
        @wraps(view)
        def page(request: HttpRequest, organization: str, **arguments: Any) -> HttpResponse:
            try:
                member = member_of(request, organization)
                member.caller.require(permission)
                scope = organization_scope(member.organization.id) if scoped else nullcontext()
                with scope:
                    return view(request, member, **arguments)
            except DomainError as error:
                return refusal(request, error)

        return page

    return wrap


def member_of(request: HttpRequest, organization: str) -> Member:
    """The signed-in person as a member of the organization with this short name."""
    user = signed_in(request)
    memberships = selectors.membership_list_of_user(user)
    found = next((each for each in memberships if each.organization.slug == organization), None)
    if found is None:
        raise NotFound("There is no organization of yours by that name.", param="organization")
    role = Role(found.role)
    return Member(
        user=user,
        caller=Caller.member(
            user,
            organization_id=found.organization_id,
            role=role,
            address=request.META.get("REMOTE_ADDR") or None,
        ),
        organization=found.organization,
        role=role,
        organizations=tuple(each.organization for each in memberships),
    )


def signed_in(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def may_found(user: User) -> bool:
    """Whether somebody may found an organization by themselves; the REST API asks the same."""
    return user.is_staff or bool(settings.TESSERA_SIGNUP)


def refusal(request: HttpRequest, error: DomainError) -> HttpResponse:
    """The page that says what was refused, by which rule, and under which request id."""
    return render(request, "error.html", error_body(error), status=error.status)
