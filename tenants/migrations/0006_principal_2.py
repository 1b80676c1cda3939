"""What gateways ask from this release on: the principal with its tier, weight, way of paying and limits.

Beside ``tessera_principal``, which gateways of the release before go on calling until they are replaced.
"""

from django.db import migrations

# A limit of 0 left from earlier releases means 1 here: what reads this may divide by it.
PRINCIPAL = """
CREATE FUNCTION tessera_principal_2(mac bytea)
RETURNS TABLE (
    key_id text, organization text, project text, scopes text[], models text[], environment text,
    version bigint, active boolean, expires_at double precision,
    tier text, weight int, billing text, limits jsonb
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT k.id::text, k.organization_id::text, k.project_id::text, k.scopes::text[], k.models::text[],
           k.environment::text, k.version + p.version + o.version,
           k.revoked_at IS NULL AND o.suspended_at IS NULL
               AND (k.expires_at IS NULL OR k.expires_at > now()),
           extract(epoch FROM k.expires_at)::double precision,
           plan.tier::text, plan.weight::int, coalesce(nullif(o.billing, ''), plan.billing)::text,
           jsonb_build_array(
               jsonb_build_object(
                   'scope', 'organization', 'id', o.id,
                   'requests_per_minute', greatest(1, coalesce(oq.requests_per_minute, plan.requests_per_minute)),
                   'tokens_per_minute', greatest(1, coalesce(oq.tokens_per_minute, plan.tokens_per_minute)),
                   'concurrency', greatest(1, coalesce(oq.concurrency, plan.concurrency)),
                   'budget_nano', oq.budget_nano),
               jsonb_build_object(
                   'scope', 'project', 'id', p.id,
                   'requests_per_minute', CASE WHEN pq.requests_per_minute IS NOT NULL THEN greatest(1, pq.requests_per_minute) END,
                   'tokens_per_minute', CASE WHEN pq.tokens_per_minute IS NOT NULL THEN greatest(1, pq.tokens_per_minute) END,
                   'concurrency', CASE WHEN pq.concurrency IS NOT NULL THEN greatest(1, pq.concurrency) END,
                   'budget_nano', pq.budget_nano),
               jsonb_build_object(
                   'scope', 'key', 'id', k.id,
                   'requests_per_minute', CASE WHEN k.requests_per_minute IS NOT NULL THEN greatest(1, k.requests_per_minute) END,
                   'tokens_per_minute', CASE WHEN k.tokens_per_minute IS NOT NULL THEN greatest(1, k.tokens_per_minute) END,
                   'concurrency', CASE WHEN k.concurrency IS NOT NULL THEN greatest(1, k.concurrency) END,
                   'budget_nano', k.budget_nano))
    FROM public.tenants_apikey k
    JOIN public.tenants_project p ON p.id = k.project_id
    JOIN public.tenants_organization o ON o.id = k.organization_id
    JOIN public.tenants_plan plan ON plan.id = o.plan_id
    LEFT JOIN public.tenants_quota oq ON oq.organization_id = o.id AND oq.project_id IS NULL
    LEFT JOIN public.tenants_quota pq ON pq.organization_id = o.id AND pq.project_id = p.id
    WHERE k.mac = tessera_principal_2.mac
$$
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0005_tiers_billing_and_key_limits")]

    operations = [
        migrations.RunSQL(
            [
                "CREATE POLICY owner_reads ON tenants_quota FOR SELECT TO tessera_owner USING (true)",
                PRINCIPAL,
                "REVOKE ALL ON FUNCTION tessera_principal_2(bytea) FROM PUBLIC",
                "GRANT EXECUTE ON FUNCTION tessera_principal_2(bytea) TO tessera_gateway, tessera_app",
            ],
            [
                "DROP FUNCTION tessera_principal_2(bytea)",
                "DROP POLICY owner_reads ON tenants_quota",
            ],
        ),
    ]
