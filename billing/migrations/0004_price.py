"""What a token costs on a base model: versions, only ever added, for everybody to read."""

import django.db.models.functions.datetime
from django.db import migrations, models

import kernel.ids
from tenants.rls import append_only

PER_TOKEN = (0, 10**9)


class Migration(migrations.Migration):
    dependencies = [("billing", "0003_row_security")]

    operations = [
        migrations.CreateModel(
            name="Price",
            fields=[
                ("id", models.UUIDField(default=kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ("base", models.CharField(max_length=40, verbose_name="base model")),
                ("input_nano", models.BigIntegerField(verbose_name="input, nano-USD per token")),
                ("cached_input_nano", models.BigIntegerField(verbose_name="cached input, nano-USD per token")),
                ("output_nano", models.BigIntegerField(verbose_name="output, nano-USD per token")),
                ("effective_from", models.DateTimeField()),
                ("created_by", models.CharField(max_length=254)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "price",
                "ordering": ["base", "-effective_from", "-id"],
                "indexes": [models.Index(fields=["base", "-effective_from", "-id"], name="price_by_base")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            input_nano__range=PER_TOKEN,
                            cached_input_nano__range=PER_TOKEN,
                            output_nano__range=PER_TOKEN,
                        ),
                        name="price_is_a_rate",
                    )
                ],
            },
        ),
        append_only("price"),
    ]
