"""Which request an Idempotency-Key stands for: two functions that gateways may call, and their table."""

import django.db.models.functions.datetime
from django.db import migrations, models

from tenants.rls import enable_row_security

# Both run as the owner, because the gateway's role may touch no table; the owner is bound by the policies, so they open
# the platform's scope for their own transaction. The insert decides: of two gateways with the same key one inserts, and
# the other sees its row. A key is free again after a day, or when what it stood for came to nothing that is owed, also
# where the gateway died before it could say so: then its journal has. Old keys go with new ones, a few at a time.
CLAIM = """
CREATE FUNCTION tessera_idempotency_claim(
    key_hash bytea, body_hash bytea, event_id text, organization uuid, project uuid
)
RETURNS TABLE (is_ours boolean, first_event text, is_same_body boolean, age_seconds double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    first public.idempotency_key;
BEGIN
    PERFORM set_config('app.platform', 'on', true);
    DELETE FROM public.idempotency_key AS old USING (
        SELECT o.key_hash FROM public.idempotency_key AS o
        WHERE o.claimed_at < now() - interval '24 hours'
        ORDER BY o.claimed_at LIMIT 16 FOR UPDATE SKIP LOCKED
    ) AS over WHERE old.key_hash = over.key_hash;
    INSERT INTO public.idempotency_key AS known
        (key_hash, body_hash, event_id, organization_id, project_id, claimed_at)
    VALUES (key_hash, body_hash, event_id, organization, project, clock_timestamp())
    ON CONFLICT ON CONSTRAINT idempotency_key_pkey DO UPDATE
        SET body_hash = excluded.body_hash, event_id = excluded.event_id, claimed_at = excluded.claimed_at
        WHERE known.claimed_at < now() - interval '24 hours' OR EXISTS (
            SELECT FROM public.usage_event AS u WHERE u.event_id = known.event_id AND NOT u.billable
        )
    RETURNING known.* INTO first;
    IF first IS NULL THEN
        SELECT * INTO first FROM public.idempotency_key AS k WHERE k.key_hash = key_hash;
    END IF;
    PERFORM set_config('app.platform', '', true);
    -- Released in between: whoever asks again finds it free.
    RETURN QUERY SELECT coalesce(first.event_id = event_id, false), coalesce(first.event_id::text, ''),
        coalesce(first.body_hash = body_hash, true),
        coalesce(extract(epoch FROM clock_timestamp() - first.claimed_at)::double precision, 0);
END
$$
"""

RELEASE = """
CREATE FUNCTION tessera_idempotency_release(key_hash bytea, event_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM set_config('app.platform', 'on', true);
    DELETE FROM public.idempotency_key AS k WHERE k.key_hash = key_hash AND k.event_id = event_id;
    PERFORM set_config('app.platform', '', true);
END
$$
"""
SIGNATURES = (
    "tessera_idempotency_claim(bytea, bytea, text, uuid, uuid)",
    "tessera_idempotency_release(bytea, text)",
)


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_price")]

    operations = [
        migrations.CreateModel(
            name="IdempotencyKey",
            fields=[
                ("key_hash", models.BinaryField(primary_key=True, serialize=False)),
                ("body_hash", models.BinaryField()),
                ("event_id", models.CharField()),
                ("organization_id", models.UUIDField()),
                ("project_id", models.UUIDField()),
                ("claimed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "idempotency_key",
                "indexes": [models.Index(fields=["claimed_at"], name="idempotency_key_by_age")],
            },
        ),
        enable_row_security("idempotency_key"),
        migrations.RunSQL(
            [
                CLAIM,
                RELEASE,
                "REVOKE INSERT, UPDATE ON idempotency_key FROM tessera_app",
                *(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in SIGNATURES),
                *(f"GRANT EXECUTE ON FUNCTION {name} TO tessera_gateway" for name in SIGNATURES),
            ],
            [f"DROP FUNCTION {name}" for name in SIGNATURES],
        ),
    ]
