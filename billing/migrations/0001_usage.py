"""Usage: what was metered, what stands aside, and how far each journal has been read."""

import django.db.models.functions.datetime
from django.db import migrations, models

USAGE_EVENT = """
CREATE TABLE usage_event (
    event_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    fact_hash text NOT NULL,
    organization_id uuid NOT NULL,
    project_id uuid NOT NULL,
    key_id uuid NOT NULL,
    deployment_id uuid NOT NULL,
    version_id uuid NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    other_quantities jsonb NOT NULL DEFAULT '{}',
    kind text NOT NULL,
    completeness text NOT NULL,
    billable boolean NOT NULL,
    model text NOT NULL,
    rollout text,
    arm text,
    pool text NOT NULL,
    replica text NOT NULL,
    incarnation text NOT NULL,
    cluster text NOT NULL,
    tier text NOT NULL,
    finish_reason text NOT NULL,
    price_version text,
    schema_version integer NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT usage_event_key PRIMARY KEY (occurred_at, event_id),
    CONSTRAINT usage_event_counts CHECK (
        input_tokens >= 0 AND cached_input_tokens >= 0 AND output_tokens >= 0
    )
) PARTITION BY RANGE (occurred_at)
"""


class Migration(migrations.Migration):
    initial = True
    dependencies = [("tenants", "0002_row_security")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    [
                        USAGE_EVENT,
                        "CREATE TABLE usage_event_default PARTITION OF usage_event DEFAULT",
                        "CREATE INDEX usage_event_by_organization ON usage_event (organization_id, occurred_at)",
                        "CREATE INDEX usage_event_by_id ON usage_event (event_id)",
                    ],
                    "DROP TABLE usage_event",
                ),
            ],
            state_operations=[
                migrations.CreateModel(
                    name="UsageEvent",
                    fields=[
                        ("event_id", models.CharField(primary_key=True, serialize=False)),
                        ("occurred_at", models.DateTimeField()),
                        ("fact_hash", models.CharField()),
                        ("organization_id", models.UUIDField()),
                        ("project_id", models.UUIDField()),
                        ("key_id", models.UUIDField()),
                        ("deployment_id", models.UUIDField()),
                        ("version_id", models.UUIDField()),
                        ("input_tokens", models.BigIntegerField()),
                        (
                            "cached_input_tokens",
                            models.BigIntegerField(
                                help_text="The part of the input read from cache."
                            ),
                        ),
                        ("output_tokens", models.BigIntegerField()),
                        ("other_quantities", models.JSONField(default=dict)),
                        ("kind", models.CharField()),
                        ("completeness", models.CharField()),
                        ("billable", models.BooleanField()),
                        ("model", models.CharField()),
                        ("rollout", models.CharField(null=True)),
                        ("arm", models.CharField(null=True)),
                        ("pool", models.CharField()),
                        ("replica", models.CharField()),
                        ("incarnation", models.CharField()),
                        ("cluster", models.CharField()),
                        ("tier", models.CharField()),
                        ("finish_reason", models.CharField()),
                        ("price_version", models.CharField(null=True)),
                        ("schema_version", models.IntegerField()),
                        (
                            "received_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "usage_event",
                        "ordering": ["-occurred_at", "-event_id"],
                    },
                ),
            ],
        ),
        migrations.CreateModel(
            name="UsageQuarantine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("conflict", "Another fact has the same identity"),
                            ("shape", "No row can hold it"),
                            ("database", "The database refused it"),
                        ]
                    ),
                ),
                ("detail", models.TextField()),
                ("fact_hash", models.CharField()),
                ("fact", models.TextField()),
                ("event_id", models.CharField(blank=True)),
                ("occurred_at", models.DateTimeField(blank=True, null=True)),
                (
                    "received_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={
                "db_table": "usage_quarantine",
                "ordering": ["-id"],
                "verbose_name_plural": "usage quarantine",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("fact_hash", "reason"), name="usage_quarantine_once_per_reason"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="JournalPosition",
            fields=[
                ("writer", models.CharField(primary_key=True, serialize=False)),
                ("segment", models.BigIntegerField()),
                ("offset", models.BigIntegerField()),
                ("closed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={"db_table": "journal_position", "ordering": ["-updated_at"]},
        ),
    ]
