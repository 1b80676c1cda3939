from django.db import migrations

PLANS = [
    {
        "code": "starter",
        "name": "Starter",
        "requests_per_minute": 600,
        "tokens_per_minute": 200_000,
        "concurrency": 20,
        "storage_bytes": 5 * 2**30,
    },
    {
        "code": "scale",
        "name": "Scale",
        "requests_per_minute": 6_000,
        "tokens_per_minute": 2_000_000,
        "concurrency": 200,
        "storage_bytes": 100 * 2**30,
    },
]


def add_plans(apps, schema_editor):
    plans = apps.get_model("tenants", "Plan").objects.using(schema_editor.connection.alias)
    for plan in PLANS:
        plans.get_or_create(code=plan["code"], defaults=plan)


class Migration(migrations.Migration):
    dependencies = [("tenants", "0003_principal")]

    operations = [migrations.RunPython(add_plans, migrations.RunPython.noop)]
