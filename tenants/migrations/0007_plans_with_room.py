"""Limits that were only shown are enforced from now on, by the upper bound of what a call may use: plans that still have
the numbers they came with get the room for that."""

from django.db import migrations

CHANGES = {
    "starter": (
        {"requests_per_minute": 600, "tokens_per_minute": 200_000, "concurrency": 20},
        {"requests_per_minute": 3_000, "tokens_per_minute": 3_000_000, "concurrency": 100},
    ),
    "scale": (
        {"requests_per_minute": 6_000, "tokens_per_minute": 2_000_000, "concurrency": 200},
        {"requests_per_minute": 30_000, "tokens_per_minute": 30_000_000, "concurrency": 1_000, "tier": "premium", "weight": 4},
    ),
}


def give_room(apps, schema_editor):
    plans = apps.get_model("tenants", "Plan").objects.using(schema_editor.connection.alias)
    for code, (before, after) in CHANGES.items():
        plans.filter(code=code, **before).update(**after)


class Migration(migrations.Migration):
    dependencies = [("tenants", "0006_principal_2")]

    operations = [migrations.RunPython(give_room, migrations.RunPython.noop)]
