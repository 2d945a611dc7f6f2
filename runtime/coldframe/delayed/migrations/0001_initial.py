"""Creates the table of stored tasks."""

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """The table as it began."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="DelayedTask",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("task_id", models.CharField(db_index=True, max_length=255)),
                ("name", models.TextField()),
                ("queue", models.TextField()),
                ("due", models.FloatField(db_index=True)),
                ("revoked", models.BooleanField(default=False)),
                ("message", models.TextField()),
            ],
            options={"default_permissions": ()},
        ),
    ]
