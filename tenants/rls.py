"""Migration operations for the second wall: row-level security, grants, and references that stay in
one tenant.

Every table that holds tenants' rows calls ``enable_row_security`` in the migration that creates it;
a test looks through ``pg_class`` for one that forgot. The policies bind the owner too (``FORCE``),
so that a migration which touches tenants' rows says ``SET LOCAL app.platform = 'on'`` itself.
"""

from __future__ import annotations

from django.db.migrations import RunSQL

# The sub-selects make the planner read each setting once per statement instead of once per row.
_POLICY = """
    {column} = (SELECT nullif(current_setting('app.organization_id', true), '')::uuid)
    OR (SELECT current_setting('app.platform', true)) = 'on'
"""


def enable_row_security(table: str, organization_column: str = "organization_id") -> RunSQL:
    """Rows are visible and writable only in their organization's scope, or in the platform's."""
    policy = _POLICY.format(column=organization_column)
    return RunSQL(
        [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant ON {table} USING ({policy}) WITH CHECK ({policy})",
        ],
        [
            f"DROP POLICY tenant ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ],
    )


def append_only(table: str) -> RunSQL:
    """Rows can be added and read, never changed: by the grants, and by a trigger that binds the
    owner as well.
    """
    return RunSQL(
        [
            f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM tessera_app",
            f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION tessera_refuse_change()
            """,
        ],
        [
            f"DROP TRIGGER append_only ON {table}",
            f"GRANT UPDATE, DELETE ON {table} TO tessera_app",
        ],
    )


def same_organization(table: str, column: str, target: str) -> RunSQL:
    """``table.column`` may only point at a row of ``target`` that belongs to the same organization.

    Foreign keys are checked past row-level security, so a plain one would accept somebody else's
    row. ``target`` needs a unique constraint on ``(organization_id, id)``: see
    ``organization_key``.
    """
    name = f"{table}_{column}_same_org"
    return RunSQL(
        f"""
        ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (organization_id, {column})
        REFERENCES {target} (organization_id, id)
        """,
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


def organization_key(table: str) -> RunSQL:
    """The unique key that ``same_organization`` references point at."""
    name = f"{table}_org_key"
    return RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE (organization_id, id)",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )
