"""Writes: one function per thing that is done.

Each asks the caller's permission, writes, and leaves an audit record, all in one transaction; what
gateways must hear is pushed once it is committed.
"""

from tenants.services.audit import audit_record
from tenants.services.keys import NewKey, key_create, key_revoke, key_rotate, keys_used
from tenants.services.limits import (
    BEARER_FIELDS,
    PLAN_FIELDS,
    QUOTA_FIELDS,
    billing_set,
    key_limits_set,
    plan_save,
    plan_set,
    project_limits_set,
    quota_set,
)
from tenants.services.members import member_add, member_remove, member_role_change, user_save
from tenants.services.organizations import (
    organization_create,
    organization_rename,
    organization_resume,
    organization_suspend,
    project_create,
    project_rename,
)

__all__ = [
    "BEARER_FIELDS",
    "PLAN_FIELDS",
    "QUOTA_FIELDS",
    "NewKey",
    "audit_record",
    "billing_set",
    "key_create",
    "key_limits_set",
    "key_revoke",
    "key_rotate",
    "keys_used",
    "member_add",
    "member_remove",
    "member_role_change",
    "organization_create",
    "organization_rename",
    "organization_resume",
    "organization_suspend",
    "plan_save",
    "plan_set",
    "project_create",
    "project_limits_set",
    "project_rename",
    "quota_set",
    "user_save",
]
