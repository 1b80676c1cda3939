"""The one thing the gateway may ask PostgreSQL: who is behind the MAC of a key."""

from django.db import migrations

# Runs as its owner, because the gateway's role may read no table; the owner is bound by the policies too (the custom
# settings they read cannot be set on a function without being superuser), so it gets a policy for these three.
# Every change of a key, its project or its organization raises one of the three versions, so their sum only grows.
PRINCIPAL = """
CREATE FUNCTION tessera_principal(mac bytea)
RETURNS TABLE (
    key_id text, organization text, project text, scopes text[], models text[], environment text,
    version bigint, active boolean, expires_at double precision
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT k.id::text, k.organization_id::text, k.project_id::text, k.scopes::text[], k.models::text[],
           k.environment::text, k.version + p.version + o.version,
           k.revoked_at IS NULL AND o.suspended_at IS NULL
               AND (k.expires_at IS NULL OR k.expires_at > now()),
           extract(epoch FROM k.expires_at)::double precision
    FROM public.tenants_apikey k
    JOIN public.tenants_project p ON p.id = k.project_id
    JOIN public.tenants_organization o ON o.id = k.organization_id
    WHERE k.mac = tessera_principal.mac
$$
"""

OWNER_READS = [
    f"CREATE POLICY owner_reads ON {table} FOR SELECT TO tessera_owner USING (true)"
    for table in ("tenants_apikey", "tenants_project", "tenants_organization")
]
OWNER_READS_NO_MORE = [
    f"DROP POLICY owner_reads ON {table}"
    for table in ("tenants_apikey", "tenants_project", "tenants_organization")
]


class Migration(migrations.Migration):
    dependencies = [("tenants", "0002_row_security")]

    operations = [
        migrations.RunSQL(
            [
                *OWNER_READS,
                PRINCIPAL,
                "REVOKE ALL ON FUNCTION tessera_principal(bytea) FROM PUBLIC",
                "GRANT USAGE ON SCHEMA public TO tessera_gateway",
                "GRANT EXECUTE ON FUNCTION tessera_principal(bytea) TO tessera_gateway, tessera_app",
            ],
            ["DROP FUNCTION tessera_principal(bytea)", *OWNER_READS_NO_MORE],
        ),
    ]
