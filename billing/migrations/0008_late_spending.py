"""Spending that arrives when its writer was closed: gateways read the balance again."""

from django.db import migrations

# An entry of nothing is the news of it: it has its place in the order of the organization's entries, and customers see
# why their balance moved. Organizations that are gone have no balance to read.
LATE = """
CREATE FUNCTION tessera_late_spending(writer text, organizations uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    closed timestamptz;
BEGIN
    -- Whoever closes the writer waits for us, or we see that it is closed.
    SELECT p.closed_at INTO closed FROM public.journal_position AS p
    WHERE p.writer = tessera_late_spending.writer FOR SHARE;
    IF closed IS NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('balance_entry'));
    INSERT INTO public.balance_entry (organization_id, nano, reason, actor, operation)
    SELECT o.id, 0, 'Usage arrived late', 'journal', 'late:' || txid_current() || ':' || left(writer, 60)
    FROM public.tenants_organization AS o WHERE o.id = ANY (organizations)
    ON CONFLICT ON CONSTRAINT balance_operation_once DO NOTHING;
END
$$
"""
NAME = "tessera_late_spending(text, uuid[])"


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_writers"), ("tenants", "0003_principal")]

    operations = [
        migrations.RunSQL(
            [
                "CREATE POLICY owner_insert ON balance_entry FOR INSERT TO tessera_owner WITH CHECK (nano = 0)",
                # FOR SHARE asks for the right to update, which nothing of the owner's does.
                "CREATE POLICY owner_update ON journal_position FOR UPDATE TO tessera_owner USING (true)",
                LATE,
                f"REVOKE ALL ON FUNCTION {NAME} FROM PUBLIC",
                f"GRANT EXECUTE ON FUNCTION {NAME} TO tessera_shipper",
            ],
            [f"DROP FUNCTION {NAME}", "DROP POLICY owner_insert ON balance_entry", "DROP POLICY owner_update ON journal_position"],
        ),
    ]
