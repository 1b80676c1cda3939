"""Who may do what with usage: the application reads, the shipper adds, nobody changes."""

from django.db import migrations

from tenants.rls import append_only, enable_row_security

PLATFORM = "(SELECT current_setting('app.platform', true)) = 'on'"


def operators_only(table: str) -> migrations.RunSQL:
    """Rows that belong to no organization: seen in the platform's scope alone."""
    return migrations.RunSQL(
        [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY platform ON {table} USING ({PLATFORM}) WITH CHECK ({PLATFORM})",
            f"REVOKE INSERT, UPDATE, DELETE ON {table} FROM tessera_app",
        ],
        [
            f"DROP POLICY platform ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ],
    )


def shipper_may(table: str, *commands: str) -> migrations.RunSQL:
    """The shipper serves every organization, with exactly these commands."""
    clauses = {
        "SELECT": "USING (true)",
        "INSERT": "WITH CHECK (true)",
        "UPDATE": "USING (true) WITH CHECK (true)",
    }
    return migrations.RunSQL(
        [
            f"CREATE POLICY shipper_{command.lower()} ON {table} FOR {command} TO tessera_shipper {clauses[command]}"
            for command in commands
        ],
        [f"DROP POLICY shipper_{command.lower()} ON {table}" for command in commands],
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_partitions")]

    operations = [
        enable_row_security("usage_event"),
        append_only("usage_event"),
        operators_only("usage_quarantine"),
        append_only("usage_quarantine"),
        operators_only("journal_position"),
        shipper_may("usage_event", "SELECT", "INSERT"),
        shipper_may("usage_quarantine", "SELECT", "INSERT"),
        shipper_may("journal_position", "SELECT", "INSERT", "UPDATE"),
        migrations.RunSQL(
            [
                "REVOKE INSERT ON usage_event FROM tessera_app",
                "GRANT USAGE ON SCHEMA public TO tessera_shipper",
                "GRANT INSERT ON usage_event, usage_quarantine TO tessera_shipper",
                "GRANT SELECT (occurred_at, event_id, fact_hash) ON usage_event TO tessera_shipper",
                "GRANT SELECT (fact_hash, reason) ON usage_quarantine TO tessera_shipper",
                "GRANT SELECT, INSERT, UPDATE ON journal_position TO tessera_shipper",
            ],
            migrations.RunSQL.noop,
        ),
    ]
