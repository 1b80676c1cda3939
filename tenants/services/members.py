"""People in an organization."""

from __future__ import annotations

from uuid import UUID

from tenants import selectors
from tenants.access import ActorType, Caller, Permission
from tenants.errors import AlreadyMember, LastOwner, RoleNotGrantable
from tenants.models import Membership, Organization, Role, User
from tenants.scope import organization_scope, platform_scope
from tenants.services.audit import audit_of
from tenants.services.rules import constraint_becomes


def member_add(organization_id: UUID, *, caller: Caller, email: str, role: Role) -> Membership:
    """Give somebody a role. Whoever has no account yet gets one without a password, to be set by
    mail.
    """
    caller.require(Permission.MEMBER_MANAGE, organization_id=organization_id)
    _require_grantable(caller, role)
    with (
        constraint_becomes(membership_unique_in_organization=AlreadyMember(param="email")),
        organization_scope(organization_id),
    ):
        user = User.objects.filter(email__iexact=email).first() or User.objects.create_user(email)
        member = Membership.objects.create(organization_id=organization_id, user=user, role=role)
        audit_of(caller, "member.add", member, {"email": user.email, "role": role})
    return member


def member_role_change(
    organization_id: UUID, membership_id: UUID, *, caller: Caller, role: Role
) -> Membership:
    caller.require(Permission.MEMBER_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        member = _member_for_change(organization_id, membership_id)
        _require_grantable(caller, member.role, role)
        if role != Role.OWNER:
            _require_another_owner(member)
        before, member.role = member.role, role
        member.save(update_fields=["role"])
        audit_of(caller, "member.role", member, {"before": before, "after": role})
    return member


def member_remove(organization_id: UUID, membership_id: UUID, *, caller: Caller) -> None:
    """Take somebody's membership away; anybody may leave by themselves. Keys they made stay: they
    are the organization's.
    """
    caller.require(Permission.MEMBER_READ, organization_id=organization_id)
    with organization_scope(organization_id):
        member = _member_for_change(organization_id, membership_id)
        if caller.actor_type is not ActorType.USER or caller.actor_id != str(member.user_id):
            caller.require(Permission.MEMBER_MANAGE, organization_id=organization_id)
            _require_grantable(caller, member.role)
        _require_another_owner(member)
        detail = {"email": member.user.email, "role": member.role}
        audit_of(caller, "member.remove", member, detail)
        member.delete()


def user_save(user: User, *, caller: Caller) -> User:
    """Open an account, or change what an account is; closed accounts keep their history."""
    caller.require(Permission.OPERATE)
    verb = "user.create" if user._state.adding else "user.change"
    if user._state.adding and not user.password:
        user.set_unusable_password()
    detail = {"email": user.email, "operator": user.is_staff, "active": user.is_active}
    with platform_scope():
        user.save()
        audit_of(caller, verb, user, detail)
    return user


def _member_for_change(organization_id: UUID, membership_id: UUID) -> Membership:
    """The member, with the organization's row locked: two owners who leave at once come one after
    the other.
    """
    Organization.objects.select_for_update(no_key=True).get(id=organization_id)
    return selectors.member_get(organization_id, membership_id)


def _require_another_owner(member: Membership) -> None:
    if member.role != Role.OWNER:
        return
    owners = Membership.objects.filter(organization_id=member.organization_id, role=Role.OWNER)
    if not owners.exclude(id=member.id).exists():
        raise LastOwner


def _require_grantable(caller: Caller, *roles: str) -> None:
    if not caller.roles.issuperset(roles):
        raise RoleNotGrantable(param="role")
