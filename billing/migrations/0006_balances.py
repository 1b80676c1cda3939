"""Money: what organizations were given, what each gateway process spent of it, and which processes there are."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from tenants.rls import append_only, enable_row_security

PLATFORM = "(SELECT current_setting('app.platform', true)) = 'on'"
MAX_NANO = 2**53 - 1

# All of them run as their owner: the gateway's role may touch no table. The owner is bound by the policies, too, and
# gets one for exactly what these need.

# Whether a writer may hold money. One whose journal is closed may not: its spending is final.
ENTER = """
CREATE FUNCTION tessera_roster_enter(writer text, cell text, node text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO public.gateway_roster AS r (writer, cell, node) VALUES (writer, cell, node)
    ON CONFLICT ON CONSTRAINT gateway_roster_pkey DO NOTHING;
    DELETE FROM public.gateway_roster AS r USING public.journal_position AS p
    WHERE p.writer = r.writer AND p.closed_at < now() - interval '30 days';
    RETURN NOT EXISTS (
        SELECT FROM public.journal_position AS p WHERE p.writer = tessera_roster_enter.writer AND p.closed_at IS NOT NULL
    );
END
$$
"""

LIVING = """
CREATE FUNCTION tessera_roster(cell text) RETURNS TABLE (writer text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT r.writer::text FROM public.gateway_roster r
    WHERE r.cell = tessera_roster.cell AND NOT EXISTS (
        SELECT FROM public.journal_position p WHERE p.writer = r.writer AND p.closed_at IS NOT NULL
    )
    ORDER BY r.writer
$$
"""

# The totals of those of the writers whose journal is closed; one row without an account for who spent nothing.
TOTALS = """
CREATE FUNCTION tessera_closed_totals(writers text[]) RETURNS TABLE (writer text, account text, nano bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT p.writer::text, s.account::text, s.nano
    FROM public.journal_position p LEFT JOIN public.writer_spend s ON s.writer = p.writer
    WHERE p.writer = ANY (writers) AND p.closed_at IS NOT NULL
$$
"""

# One statement, hence one snapshot of entries and spending.
BASE = """
CREATE FUNCTION tessera_account_base(account text, announced text[]) RETURNS TABLE (nano bigint, last_entry bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    WITH owner AS (
        SELECT CASE WHEN account ~ '^org:[0-9a-f-]{32,36}$' THEN substr(account, 5)::uuid END AS id
    ), given AS (
        SELECT coalesce(sum(e.nano), 0) AS nano, coalesce(max(e.id), 0) AS last_entry
        FROM public.balance_entry e WHERE e.organization_id = (SELECT id FROM owner)
    ), spent AS (
        SELECT coalesce(sum(s.nano), 0) AS nano FROM public.writer_spend s
        WHERE s.account = tessera_account_base.account AND s.writer <> ALL (announced)
    )
    SELECT (given.nano - spent.nano)::bigint, given.last_entry FROM given, spent
$$
"""

# Entries behind one, oldest first, each with the one before it of the same organization.
ENTRIES = """
CREATE FUNCTION tessera_balance_entries(after bigint)
RETURNS TABLE (entry bigint, organization text, previous bigint, nano bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT e.id, e.organization_id::text, coalesce((
        SELECT max(b.id) FROM public.balance_entry b WHERE b.organization_id = e.organization_id AND b.id < e.id
    ), 0), e.nano
    FROM public.balance_entry e WHERE e.id > after ORDER BY e.id LIMIT 500
$$
"""

# The newest entry that is older than a day: what a process has to tell again begins behind it.
OLD_ENTRY = """
CREATE FUNCTION tessera_balance_old_entry() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT coalesce(max(id), 0) FROM public.balance_entry WHERE created_at < now() - interval '1 day'
$$
"""

FUNCTIONS = {
    "tessera_roster_enter(text, text, text)": ENTER,
    "tessera_roster(text)": LIVING,
    "tessera_closed_totals(text[])": TOTALS,
    "tessera_account_base(text, text[])": BASE,
    "tessera_balance_entries(bigint)": ENTRIES,
    "tessera_balance_old_entry()": OLD_ENTRY,
}
OWNER_MAY = {
    "balance_entry": ("SELECT",),
    "writer_spend": ("SELECT",),
    "journal_position": ("SELECT",),
    "gateway_roster": ("SELECT", "INSERT", "DELETE"),
}
SHIPPER_MAY = ("SELECT", "INSERT", "UPDATE")
CLAUSES = {
    "SELECT": "USING (true)",
    "INSERT": "WITH CHECK (true)",
    "UPDATE": "USING (true) WITH CHECK (true)",
    "DELETE": "USING (true)",
}


def policy(prefix: str, role: str, table: str, command: str) -> str:
    return f"CREATE POLICY {prefix}_{command.lower()} ON {table} FOR {command} TO {role} {CLAUSES[command]}"


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_idempotency_keys"), ("tenants", "0002_row_security")]

    operations = [
        migrations.CreateModel(
            name="BalanceEntry",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("nano", models.BigIntegerField(verbose_name="amount, nano-USD")),
                ("reason", models.CharField(max_length=200)),
                ("actor", models.CharField(max_length=254)),
                ("operation", models.CharField(max_length=100)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="balance_entries",
                        to="tenants.organization",
                    ),
                ),
            ],
            options={
                "db_table": "balance_entry",
                "ordering": ["-id"],
                "verbose_name_plural": "balance entries",
                "indexes": [models.Index(fields=["organization", "id"], name="balance_by_organization")],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "operation"), name="balance_operation_once"),
                    models.CheckConstraint(
                        condition=models.Q(nano__range=(-MAX_NANO, MAX_NANO)), name="balance_entry_is_an_amount"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WriterSpend",
            fields=[
                ("pk", models.CompositePrimaryKey("writer", "account", blank=True, editable=False, primary_key=True, serialize=False)),
                ("writer", models.CharField()),
                ("account", models.CharField()),
                ("organization_id", models.UUIDField()),
                ("nano", models.BigIntegerField()),
            ],
            options={
                "db_table": "writer_spend",
                "indexes": [
                    models.Index(fields=["account"], include=("writer", "nano"), name="writer_spend_by_account")
                ],
            },
        ),
        migrations.CreateModel(
            name="GatewayRoster",
            fields=[
                ("writer", models.CharField(primary_key=True, serialize=False)),
                ("cell", models.CharField()),
                ("node", models.CharField()),
                ("entered_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "gateway_roster",
                "ordering": ["-entered_at"],
                "verbose_name_plural": "gateway roster",
                "indexes": [models.Index(fields=["cell"], name="gateway_roster_by_cell")],
            },
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_event ADD COLUMN cost_nano bigint NOT NULL DEFAULT 0"
                    " CONSTRAINT usage_event_cost CHECK (cost_nano >= 0)",
                    "ALTER TABLE usage_event DROP COLUMN cost_nano",
                )
            ],
            state_operations=[
                migrations.AddField(
                    "usageevent", "cost_nano", models.BigIntegerField("cost, nano-USD", db_default=0)
                )
            ],
        ),
        enable_row_security("balance_entry"),
        append_only("balance_entry"),
        enable_row_security("writer_spend"),
        migrations.RunSQL(
            [
                "REVOKE INSERT, UPDATE, DELETE ON writer_spend, gateway_roster FROM tessera_app",
                "GRANT SELECT, INSERT, UPDATE ON writer_spend TO tessera_shipper",
                *(policy("shipper", "tessera_shipper", "writer_spend", command) for command in SHIPPER_MAY),
                "ALTER TABLE gateway_roster ENABLE ROW LEVEL SECURITY",
                "ALTER TABLE gateway_roster FORCE ROW LEVEL SECURITY",
                f"CREATE POLICY platform ON gateway_roster USING ({PLATFORM}) WITH CHECK ({PLATFORM})",
                *(
                    policy("owner", "tessera_owner", table, command)
                    for table, commands in OWNER_MAY.items()
                    for command in commands
                ),
                *FUNCTIONS.values(),
                *(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in FUNCTIONS),
                *(f"GRANT EXECUTE ON FUNCTION {name} TO tessera_gateway" for name in FUNCTIONS),
            ],
            [
                *(f"DROP FUNCTION {name}" for name in FUNCTIONS),
                "DROP POLICY owner_select ON journal_position",
            ],
        ),
    ]
