"""Writers of journals as operators see them: who lives, who is held, who was written off by whom."""

from django.db import migrations, models

GRANTED = "closed_at, updated_at, written_off_at, written_off_by, written_off_reason"


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_balances")]

    operations = [
        migrations.AddField("journalposition", "seen_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("journalposition", "is_living", models.BooleanField(db_default=False, default=False)),
        migrations.AddField(
            "journalposition", "held_because", models.CharField(blank=True, db_default="", default="")
        ),
        migrations.AddField("journalposition", "written_off_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField(
            "journalposition", "written_off_by", models.CharField(blank=True, db_default="", default="")
        ),
        migrations.AddField(
            "journalposition", "written_off_reason", models.CharField(blank=True, db_default="", default="")
        ),
        # In the platform's scope alone: the table's policy says so. How far a writer got stays the shipper's to say.
        migrations.RunSQL(
            [
                "GRANT INSERT ON journal_position TO tessera_app",
                f"GRANT UPDATE ({GRANTED}) ON journal_position TO tessera_app",
            ],
            [
                "REVOKE INSERT ON journal_position FROM tessera_app",
                f"REVOKE UPDATE ({GRANTED}) ON journal_position FROM tessera_app",
            ],
        ),
    ]
