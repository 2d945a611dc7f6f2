"""A daily job as an entry of the schedule: at a time of the day that people mean, in their zone."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.utils import timezone

NAME = "forget addresses"
# In UTC it would come an hour earlier or later in summer. Not between 02:00 and 03:00: in this zone
# that hour is left out of one day of the year, and comes twice on another.
DAILY = {"minute": "15", "hour": "4", "timezone": "Europe/Berlin"}


def schedule(apps: StateApps, editor: BaseDatabaseSchemaEditor | None) -> None:
    crontabs = apps.get_model("django_celery_beat", "CrontabSchedule").objects
    entries = apps.get_model("django_celery_beat", "PeriodicTask").objects
    daily, _ = crontabs.get_or_create(**DAILY, day_of_week="*", day_of_month="*", month_of_year="*")
    entries.get_or_create(
        name=NAME,
        defaults={
            "task": "orders.batches.forget_addresses",
            "crontab": daily,
            "last_run_at": timezone.now(),
        },
    )


def unschedule(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    """The crontab stays: other entries may use it."""
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name=NAME).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0005_callback"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]
    operations = [migrations.RunPython(schedule, unschedule)]
