"""This room's refusals.

Conflict
    LastOwner          an organization keeps at least one owner
    AlreadyMember      one membership per person and organization
    KeyNotActive       a revoked or expired key cannot be rotated
    NameTaken          a slug is unique among its siblings
Forbidden
    RoleNotGrantable   nobody gives or takes a role above their own
    ScopeNotGrantable  a key's scopes are a subset of its minter's
"""

from __future__ import annotations

from kernel.errors import Conflict, Forbidden


class LastOwner(Conflict):
    code = "last_owner"
    default_message = "An organization keeps at least one owner. Make somebody else an owner first."


class AlreadyMember(Conflict):
    code = "already_member"
    default_message = "This person is a member already. Change their role instead."


class KeyNotActive(Conflict):
    code = "key_not_active"
    default_message = "This key is revoked or expired and cannot be rotated. Create a new one."


class NameTaken(Conflict):
    code = "name_taken"
    default_message = "This short name is taken. Choose another."


class RoleNotGrantable(Forbidden):
    code = "role_not_grantable"
    default_message = "Your role does not allow giving or taking this role; ask an owner."


class ScopeNotGrantable(Forbidden):
    code = "scope_not_grantable"
    default_message = "A key cannot be given more than its maker may do; ask an owner or admin."
