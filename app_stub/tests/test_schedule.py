"""The schedule in nights in which clocks are put forward or back, on a clock that runs fast."""

from datetime import UTC, datetime, timedelta
from importlib import import_module
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.apps import apps
from django_celery_beat.models import CrontabSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from shop.celery import app

STEP = timedelta(minutes=30)


class Scheduler(DatabaseScheduler):
    """Beat's own, which notes when it would send what."""

    producer = None

    def setup_schedule(self):
        self.sent = []
        super().setup_schedule()

    def apply_entry(self, entry, producer=None):
        self.sent.append((entry.name, datetime.now(UTC)))


def sent_in(nights: list[datetime], name: str) -> list[datetime]:
    """When an entry is sent in these nights; its row is there already."""
    with time_machine.travel(nights[0], tick=False) as clock:
        scheduler = Scheduler(app=app)
        scheduler._finalize.cancel()  # it would write when the database of the tests is gone
        while datetime.now(UTC) < nights[-1] + timedelta(days=1):
            while scheduler.tick() == 0:
                pass
            clock.shift(STEP)
    return [at for sent, at in scheduler.sent if sent == name]


@pytest.fixture(params=["2027-03-28", "2027-10-31"], ids=["forward", "back"])
def nights(request) -> list[datetime]:
    """A night in which the clocks of Europe are changed, with the ones before and after it."""
    night = datetime.fromisoformat(request.param).replace(tzinfo=UTC)
    return [night + timedelta(days=days) for days in (-1, 0, 1)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_an_entry_of_each_night_comes_once(nights, zone):
    """Also where somebody gives it a zone in the admin; in spring, 02:30 is not a time there."""
    schedule = CrontabSchedule.objects.create(minute="30", hour="2", timezone=zone)
    PeriodicTask.objects.create(
        name="nightly", task="orders.tasks.echo", crontab=schedule, last_run_at=nights[0]
    )
    sent = sent_in(nights, "nightly")
    assert [at.date() for at in sent] == [each.date() for each in nights]
    if zone == "UTC":
        assert {(at.hour, at.minute) for at in sent} == {(2, 30)}


@pytest.mark.django_db(transaction=True)
def test_the_daily_job_comes_once_a_day_at_its_time_of_the_day(nights):
    """Its own entry, as the migration writes it."""
    migration = import_module("orders.migrations.0006_forget_schedule")
    PeriodicTask.objects.filter(name=migration.NAME).delete()  # there, or emptied by another test
    with time_machine.travel(nights[0], tick=False):
        migration.schedule(apps, None)
    sent = sent_in(nights, migration.NAME)
    local = [at.astimezone(ZoneInfo("Europe/Berlin")) for at in sent]
    assert [at.date() for at in local] == [each.date() for each in nights]
    # Steps of the clock are 30 minutes here: 04:15 is seen at 04:30.
    assert {(at.hour, at.minute) for at in local} == {(4, 30)}
    assert len({at.hour for at in sent}) == 2  # one time of the day is two hours of UTC


@pytest.mark.django_db
def test_an_entry_is_in_utc_unless_it_says_otherwise():
    assert str(CrontabSchedule.objects.create().timezone) == "UTC"
