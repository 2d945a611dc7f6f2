"""The schedule in nights in which clocks are put forward or back, on a clock that runs fast."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
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


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("night", ["2027-03-28", "2027-10-31"], ids=["forward", "back"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_an_entry_of_each_night_comes_once(night, zone):
    """Also where somebody gives it a zone in the admin; in spring, 02:30 is not a time there."""
    night = datetime.fromisoformat(night).replace(tzinfo=UTC)
    nights = [night + timedelta(days=days) for days in (-1, 0, 1)]
    with time_machine.travel(nights[0], tick=False) as clock:
        schedule = CrontabSchedule.objects.create(minute="30", hour="2", timezone=zone)
        PeriodicTask.objects.create(
            name="nightly", task="orders.tasks.echo", crontab=schedule, last_run_at=nights[0]
        )
        scheduler = Scheduler(app=app)
        scheduler._finalize.cancel()  # it would write when the database of the tests is gone
        while datetime.now(UTC) < nights[-1] + timedelta(days=1):
            while scheduler.tick() == 0:
                pass
            clock.shift(STEP)
    sent = [at for name, at in scheduler.sent if name == "nightly"]
    assert [at.date() for at in sent] == [each.date() for each in nights]
    if zone == "UTC":
        assert {(at.hour, at.minute) for at in sent} == {(2, 30)}


@pytest.mark.django_db
def test_an_entry_is_in_utc_unless_it_says_otherwise():
    assert str(CrontabSchedule.objects.create().timezone) == "UTC"
