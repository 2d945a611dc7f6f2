"""The sweep of the outbox as an entry of the schedule."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.utils import timezone


def schedule(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    intervals = apps.get_model("django_celery_beat", "IntervalSchedule").objects
    entries = apps.get_model("django_celery_beat", "PeriodicTask").objects
    often, _ = intervals.get_or_create(every=5, period="seconds")
    entries.get_or_create(
        name="sweep",
        defaults={
            "task": "orders.outbox.sweep",
            "interval": often,
            "last_run_at": timezone.now(),
            # One that was not begun when the next comes is not worth doing any more.
            "expire_seconds": 60,
        },
    )


def unschedule(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    """The interval stays: other entries may use it."""
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name="sweep").delete()


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0003_outbox"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]
    operations = [migrations.RunPython(schedule, unschedule)]
