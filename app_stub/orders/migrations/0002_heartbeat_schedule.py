"""The heartbeat as an entry of the schedule, from where the admin can change it."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.utils import timezone


def schedule(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    intervals = apps.get_model("django_celery_beat", "IntervalSchedule").objects
    entries = apps.get_model("django_celery_beat", "PeriodicTask").objects
    every_minute, _ = intervals.get_or_create(every=1, period="minutes")
    entries.get_or_create(
        name="heartbeat",
        defaults={
            "task": "orders.tasks.heartbeat",
            "interval": every_minute,
            # Without a first time, Beat counts the interval anew at each of its starts.
            "last_run_at": timezone.now(),
        },
    )


def unschedule(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    """The interval stays: other entries may use it."""
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name="heartbeat").delete()


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0001_initial"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]
    operations = [migrations.RunPython(schedule, unschedule)]
