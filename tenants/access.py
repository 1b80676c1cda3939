"""Who may do what: one table from roles and key scopes to permissions, and the caller who has them.

The table is the whole policy. Views and pages ask for a permission, services ask again before they
write; nobody asks for a role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from kernel.errors import Forbidden, NotFound
from tenants.models import Role, Scope, User


class Permission(StrEnum):
    ORGANIZATION_READ = "organization:read"
    ORGANIZATION_MANAGE = "organization:manage"
    PROJECT_MANAGE = "project:manage"
    MEMBER_READ = "member:read"
    MEMBER_MANAGE = "member:manage"
    KEY_READ = "key:read"
    KEY_MANAGE = "key:manage"
    LIMIT_MANAGE = "limit:manage"  # of projects and keys, below the organization's own
    MODEL_READ = "model:read"
    MODEL_MANAGE = "model:manage"
    INFERENCE = "inference"
    USAGE_READ = "usage:read"
    AUDIT_READ = "audit:read"
    OPERATE = "operate"  # plans, quotas, suspension: whoever runs the installation


_OPERATING = frozenset(Permission)
_EVERYTHING = _OPERATING - {Permission.OPERATE}
_READING = frozenset(
    {
        Permission.ORGANIZATION_READ,
        Permission.MEMBER_READ,
        Permission.MODEL_READ,
        Permission.USAGE_READ,
    }
)

ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.OWNER: _EVERYTHING,
    Role.ADMIN: _EVERYTHING,
    Role.DEVELOPER: _READING
    | {
        Permission.KEY_READ,
        Permission.KEY_MANAGE,
        Permission.MODEL_MANAGE,
        Permission.INFERENCE,
    },
    Role.BILLING: frozenset(
        {Permission.ORGANIZATION_READ, Permission.MEMBER_READ, Permission.USAGE_READ}
    ),
    Role.VIEWER: _READING,
}

# A key never manages people: whoever holds it could make its loss permanent.
SCOPE_PERMISSIONS: Mapping[Scope, frozenset[Permission]] = {
    Scope.INFERENCE: frozenset({Permission.INFERENCE}),
    Scope.USAGE_READ: frozenset({Permission.ORGANIZATION_READ, Permission.USAGE_READ}),
    Scope.MANAGE: _EVERYTHING - {Permission.MEMBER_MANAGE, Permission.INFERENCE},
}

# The scopes a role may put on a new key; a key may pass on its own.
ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.OWNER: frozenset(Scope),
    Role.ADMIN: frozenset(Scope),
    Role.DEVELOPER: frozenset({Scope.INFERENCE, Scope.USAGE_READ}),
    Role.BILLING: frozenset(),
    Role.VIEWER: frozenset(),
}

# The roles that a member with MEMBER_MANAGE may give and take away.
ROLE_GRANTS: Mapping[Role, frozenset[Role]] = {
    Role.OWNER: frozenset(Role),
    Role.ADMIN: frozenset(Role) - {Role.OWNER},
    Role.DEVELOPER: frozenset(),
    Role.BILLING: frozenset(),
    Role.VIEWER: frozenset(),
}


class ActorType(StrEnum):
    USER = "user"
    KEY = "key"
    OPERATOR = "operator"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who is known, and what they may do in one organization.

    ``organization_id`` is empty for operators, the system itself, and people who belong nowhere
    yet. ``label`` and ``address`` are for the audit record only.
    """

    actor_type: ActorType
    actor_id: str
    label: str
    organization_id: UUID | None = None
    project_id: UUID | None = None  # a key's own project
    permissions: frozenset[Permission] = frozenset()
    scopes: frozenset[Scope] = frozenset()  # what this caller may put on a new key
    models: frozenset[str] = frozenset()  # the only models a key of theirs may name; empty is all
    roles: frozenset[Role] = frozenset()  # what this caller may give to and take from members
    address: str | None = None

    def can(self, permission: Permission) -> bool:
        return permission in self.permissions

    def require(self, permission: Permission, *, organization_id: UUID | None = None) -> None:
        """Refuse unless this caller has the permission, and has it in that organization."""
        if organization_id and self.organization_id and organization_id != self.organization_id:
            raise NotFound
        if permission not in self.permissions:
            raise Forbidden(
                f"This needs the permission {permission}, which you do not have here. "
                "An owner or admin of the organization can change your role.",
                rule=permission,
            )

    @property
    def organization(self) -> UUID:
        """The organization this call is about; a view that has one never sees this refuse."""
        if self.organization_id is None:
            raise Forbidden("You belong to no organization yet.", rule="membership")
        return self.organization_id

    @staticmethod
    def member(user: User, *, organization_id: UUID, role: Role, address: str | None) -> Caller:
        return Caller(
            actor_type=ActorType.USER,
            actor_id=str(user.id),
            label=user.email,
            organization_id=organization_id,
            permissions=ROLE_PERMISSIONS[role],
            scopes=ROLE_SCOPES[role],
            roles=ROLE_GRANTS[role],
            address=address,
        )

    @staticmethod
    def person(user: User, *, address: str | None) -> Caller:
        """Somebody signed in, outside any organization."""
        return Caller(
            actor_type=ActorType.USER, actor_id=str(user.id), label=user.email, address=address
        )

    @staticmethod
    def key(  # noqa: PLR0913 - what a principal consists of
        key_id: str,
        *,
        organization_id: UUID,
        project_id: UUID,
        scopes: Iterable[Scope],
        models: Iterable[str],
        label: str,
        address: str | None,
    ) -> Caller:
        own = frozenset(scopes)
        return Caller(
            actor_type=ActorType.KEY,
            actor_id=key_id,
            label=label,
            organization_id=organization_id,
            project_id=project_id,
            permissions=frozenset().union(*(SCOPE_PERMISSIONS[scope] for scope in own)),
            scopes=own,
            models=frozenset(models),
            address=address,
        )

    @staticmethod
    def operator(user: User, *, address: str | None = None) -> Caller:
        """Somebody who runs this installation, through the admin site."""
        return _unbound(ActorType.OPERATOR, str(user.id), user.email, address)

    @staticmethod
    def system(label: str) -> Caller:
        """The product itself: a management command, a sweep."""
        return _unbound(ActorType.SYSTEM, label, label, None)


def _unbound(actor_type: ActorType, actor_id: str, label: str, address: str | None) -> Caller:
    return Caller(
        actor_type=actor_type,
        actor_id=actor_id,
        label=label,
        permissions=_OPERATING,
        scopes=frozenset(Scope),
        roles=frozenset(Role),
        address=address,
    )
