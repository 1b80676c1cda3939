"""A partition per month, made ahead of time by whoever may only ask for it."""

from django.db import migrations

# Runs as its owner: the application's role may make no tables. Rows that came before their month had a partition lie
# in the default one and move; the lock keeps more from arriving meanwhile. Nobody is granted a partition itself, and
# row-level security without a policy says so once more: the policies that count are the parent's.
PARTITIONS = """
CREATE FUNCTION usage_event_partitions(months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    month timestamptz;
    next_month timestamptz;
    name text;
    created integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('usage_event_partitions'));
    FOR ahead IN 0..months_ahead LOOP
        month := date_trunc('month', now()) + make_interval(months => ahead);
        next_month := month + interval '1 month';
        name := 'usage_event_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass('public.' || name) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.usage_event INCLUDING ALL)', name);
        EXECUTE format('REVOKE ALL ON public.%I FROM tessera_app', name);
        LOCK TABLE public.usage_event_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format(
            'WITH moved AS (
                DELETE FROM public.usage_event_default
                WHERE occurred_at >= $1 AND occurred_at < $2 RETURNING *
            ) INSERT INTO public.%I SELECT * FROM moved', name
        ) USING month, next_month;
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'ALTER TABLE public.usage_event ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            name, month, next_month
        );
        created := created + 1;
    END LOOP;
    RETURN created;
END
$$
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_usage")]

    operations = [
        migrations.RunSQL(
            [
                PARTITIONS,
                "REVOKE ALL ON FUNCTION usage_event_partitions(integer) FROM PUBLIC",
                "GRANT EXECUTE ON FUNCTION usage_event_partitions(integer) TO tessera_app",
                "REVOKE ALL ON usage_event_default FROM tessera_app",
                "ALTER TABLE usage_event_default ENABLE ROW LEVEL SECURITY",
                "SELECT usage_event_partitions(3)",
            ],
            "DROP FUNCTION usage_event_partitions(integer)",
        ),
    ]
