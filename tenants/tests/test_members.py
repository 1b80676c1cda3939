from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import pytest
from django.db import connection

from kernel.errors import DomainError, Forbidden, NotFound
from tenants.access import Caller
from tenants.errors import AlreadyMember, LastOwner, RoleNotGrantable
from tenants.models import AuditEvent, Membership, Organization, Role, User
from tenants.scope import organization_scope, platform_scope
from tenants.services import member_add, member_remove, member_role_change
from tenants.tests.factories import SYSTEM, caller_of, make_member, make_organization, make_user

pytestmark = pytest.mark.django_db


def _owners(organization: Organization) -> int:
    with organization_scope(organization.id):
        return Membership.objects.filter(role=Role.OWNER).count()


def _owner_of(organization: Organization) -> Membership:
    with organization_scope(organization.id):
        return Membership.objects.get(role=Role.OWNER)


def test_somebody_new_gets_an_account_without_a_password() -> None:
    organization = make_organization()
    member_add(organization.id, caller=SYSTEM, email="New@Example.com", role=Role.VIEWER)
    user = User.objects.get(email="new@example.com")
    assert not user.has_usable_password()


def test_adding_somebody_twice_is_refused_in_words() -> None:
    organization = make_organization()
    member_add(organization.id, caller=SYSTEM, email="ann@example.com", role=Role.VIEWER)
    with pytest.raises(AlreadyMember):
        member_add(organization.id, caller=SYSTEM, email="ANN@example.com", role=Role.ADMIN)


def test_an_admin_neither_makes_nor_unmakes_owners() -> None:
    """A26."""
    organization = make_organization()
    admin = caller_of(organization, Role.ADMIN)
    owner = _owner_of(organization)
    with pytest.raises(RoleNotGrantable):
        member_add(organization.id, caller=admin, email="x@example.com", role=Role.OWNER)
    with pytest.raises(RoleNotGrantable):
        member_role_change(organization.id, owner.id, caller=admin, role=Role.VIEWER)
    with pytest.raises(RoleNotGrantable):
        member_remove(organization.id, owner.id, caller=admin)


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.BILLING, Role.VIEWER])
def test_others_manage_nobody_but_may_leave(role: Role) -> None:
    organization = make_organization()
    someone = make_member(organization, Role.VIEWER)
    me = make_member(organization, role)
    caller = Caller.member(me.user, organization_id=organization.id, role=role, address=None)
    with pytest.raises(Forbidden):
        member_add(organization.id, caller=caller, email="x@example.com", role=Role.VIEWER)
    with pytest.raises(Forbidden):
        member_role_change(organization.id, me.id, caller=caller, role=Role.ADMIN)
    with pytest.raises(Forbidden):
        member_remove(organization.id, someone.id, caller=caller)
    member_remove(organization.id, me.id, caller=caller)


def test_a_foreign_member_is_not_found() -> None:
    acme, globex = make_organization(), make_organization()
    foreign = make_member(globex, Role.VIEWER)
    owner = caller_of(acme, Role.OWNER)
    with pytest.raises(NotFound):
        member_remove(acme.id, foreign.id, caller=owner)
    with pytest.raises(NotFound):
        member_remove(globex.id, foreign.id, caller=owner)


def test_somebody_of_another_organization_cannot_leave_it_in_their_name() -> None:
    acme, globex = make_organization(), make_organization()
    user = make_user()
    make_member(acme, Role.VIEWER, user)
    there = make_member(globex, Role.VIEWER, user)
    here = Caller.member(user, organization_id=acme.id, role=Role.VIEWER, address=None)
    with pytest.raises(NotFound):
        member_remove(globex.id, there.id, caller=here)


def test_the_last_owner_stays() -> None:
    """A27."""
    organization = make_organization()
    owner = _owner_of(organization)
    with pytest.raises(LastOwner):
        member_remove(organization.id, owner.id, caller=SYSTEM)
    with pytest.raises(LastOwner):
        member_role_change(organization.id, owner.id, caller=SYSTEM, role=Role.ADMIN)
    assert _owners(organization) == 1


def test_an_owner_may_go_when_there_is_another() -> None:
    organization = make_organization()
    first = _owner_of(organization)
    make_member(organization, Role.OWNER)
    member_remove(organization.id, first.id, caller=SYSTEM)
    assert _owners(organization) == 1


def _leave(organization_id: UUID, member: Membership) -> None:
    member_remove(organization_id, member.id, caller=SYSTEM)


def _step_down(organization_id: UUID, member: Membership) -> None:
    member_role_change(organization_id, member.id, caller=SYSTEM, role=Role.VIEWER)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("going", [_leave, _step_down])
def test_of_two_owners_who_go_at_once_one_stays(
    going: Callable[[UUID, Membership], None],
) -> None:
    """A27."""
    organization = make_organization()
    owners = [_owner_of(organization), make_member(organization, Role.OWNER)]
    together = Barrier(len(owners))

    def go(member: Membership) -> str:
        together.wait(timeout=10)
        try:
            going(organization.id, member)
        except DomainError as error:
            return error.code
        finally:
            connection.close()
        return "gone"

    with ThreadPoolExecutor(len(owners)) as pool:
        outcomes = sorted(pool.map(go, owners))
    assert outcomes == ["gone", "last_owner"]
    assert _owners(organization) == 1


def test_each_change_leaves_a_record() -> None:
    organization = make_organization()
    member = member_add(organization.id, caller=SYSTEM, email="a@example.com", role=Role.VIEWER)
    member_role_change(organization.id, member.id, caller=SYSTEM, role=Role.DEVELOPER)
    member_remove(organization.id, member.id, caller=SYSTEM)
    with platform_scope():
        events = AuditEvent.objects.filter(target_id=str(member.id)).order_by("id")
        assert [(each.verb, each.detail) for each in events] == [
            ("member.add", {"email": "a@example.com", "role": "viewer"}),
            ("member.role", {"before": "viewer", "after": "developer"}),
            ("member.remove", {"email": "a@example.com", "role": "developer"}),
        ]
