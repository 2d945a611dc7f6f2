"""What Beat will send is told as Celery and django-celery-beat would send it, with what collides and what leads nowhere."""

import json
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, schedules
from coldframe import schedule
from coldframe.schedule import Entry
from conftest import QUEUE

START = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)
END = START + timedelta(days=1)
FILES = {
    "shop/__init__.py": "from shop.celery import app",
    "shop/settings.py": """
        from pathlib import Path
        SECRET_KEY = "x"
        INSTALLED_APPS = ["shop", "django_celery_beat"]
        USE_TZ = True
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}}
        CELERY_BEAT_SCHEDULE = {
            "each minute": {"task": "shop.tasks.report", "schedule": 60},
            "paused": {"task": "shop.tasks.report", "schedule": 60},  # in the admin
        }
        """,
    "shop/celery.py": """
        from celery import Celery
        app = Celery("shop")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
        """,
    "shop/tasks.py": """
        from celery import shared_task

        @shared_task
        def report():
            print("this is no line of the report")
        """,
}


@pytest.fixture
def app():
    """A Celery application whose times are UTC."""
    app = Celery("a", set_as_current=False)
    app.conf.timezone = "UTC"
    return app


def at(*when):
    """Seconds since 1970 of a time in UTC."""
    return datetime(*when, tzinfo=UTC).timestamp()


def told(plan, last=None):
    """When a schedule is due."""
    return schedule.times(plan, last, START, END)


def test_interval_goes_on_from_the_last_time(app):
    every = schedules.schedule(timedelta(hours=8), app=app)
    assert told(every, START - timedelta(hours=1)) == [
        at(2026, 3, 3, 5, 30),
        at(2026, 3, 3, 13, 30),
        at(2026, 3, 3, 21, 30),
    ]
    assert told(every) == [at(2026, 3, 3, 6, 30), at(2026, 3, 3, 14, 30)], "Beat counts from its start"
    assert told(every, START - timedelta(days=9))[0] == START.timestamp(), "what is overdue is sent at once"
    assert told(schedules.schedule(timedelta(days=2), app=app), START) == []
    assert len(told(schedules.schedule(timedelta(seconds=0.1), app=app))) == schedule.MOST


@pytest.mark.parametrize(
    ("start", "due"),
    [((2027, 3, 27, 23, 30), (2027, 3, 28, 2, 15)), ((2026, 10, 24, 22, 30), (2026, 10, 25, 3, 15))],
    ids=["an hour less", "an hour more"],
)
def test_daily_entry_is_due_once_in_a_night_in_which_clocks_change(app, start, due):
    app.conf.timezone = "Europe/Berlin"
    night = datetime(*start, tzinfo=UTC)
    plan = schedules.crontab(hour="4", minute="15", app=app)
    assert schedule.times(plan, None, night, night + timedelta(hours=12)) == [at(*due)]


def test_interval_that_begins_later_is_due_then(app):
    every, begins = schedules.schedule(timedelta(days=1), app=app), START + timedelta(hours=2)
    assert schedule.times(every, None, START, END, begins) == [begins.timestamp()]
    assert schedule.times(every, START - timedelta(hours=23), START, END, begins) == [begins.timestamp()]
    hourly = schedules.crontab(minute="0", app=app)
    assert schedule.times(hourly, None, START, END, begins)[0] == at(2026, 3, 3, 1)


@pytest.mark.parametrize(
    ("when", "due"),
    [
        ({"hour": 3, "minute": 5}, [at(2026, 3, 3, 3, 5)]),
        ({"hour": "22,23", "minute": 30}, [at(2026, 3, 2, 23, 30)]),
        ({"hour": 1, "minute": 0, "day_of_week": "sun"}, []),
    ],
)
def test_crontab_is_due_as_celery_computes_it(app, when, due):
    assert told(schedules.crontab(**when, app=app)) == due
    assert len(told(schedules.crontab(app=app))) == 24 * 60 - 1


def test_crontab_has_the_time_zone_of_the_application(app):
    app.conf.timezone = "Asia/Tokyo"
    assert told(schedules.crontab(hour=9, minute=0, app=app)) == [at(2026, 3, 3, 0, 0)]


def report(entries, took=None, **processes):
    """The report of entries, as one text."""
    return "\n".join(schedule.lines(entries, Counter(processes), took or {}, START))


def test_queue_is_compared_with_what_its_workers_can_do():
    many = Entry("many", "a.many", "default", [START.timestamp() + 60 * n for n in range(1440)])
    text = report([many, Entry("one", "a.one", "default", [START.timestamp()])], {"a.many": 30.0}, default=2, idle=4)
    assert (
        "default              1441 tasks, 2 at the same time; by the last run times 43200 s of work, 25.0 % of what they can do "
        "(without 1 task whose run time is not known)"
    ) in text
    assert "idle                 0 tasks, 4 at the same time" in text
    assert "many                 a.many to default: 1440 times, next at 2026-03-02 22:30:00, about 30.0 s" in text
    assert "Look at" not in text


def test_what_is_sent_in_one_second_to_too_few_is_named_once_with_how_often():
    entries = [Entry(name, f"a.{name}", "bulk", [at(2026, 3, 3, hour, 0) + 0.2 for hour in range(3)]) for name in "xyz"]
    entries.append(Entry("w", "a.w", "bulk", [at(2026, 3, 3, 0, 1)]))
    text = report(entries, bulk=2)
    assert text.splitlines()[-2:] == [
        "Look at",
        "3 tasks are sent to bulk in the same second, and it begins 2 at once: x, y, z; 3 times, the first at 2026-03-03 00:00:00.",
    ]
    assert "Look at" not in report(entries, bulk=3)


def test_workers_of_several_hosts_add_up():
    fixed, each = ({"tasks": 3, "tasks_per_processor": 0}, {"tasks": 0, "tasks_per_processor": 5})
    workers = [{"queues": {"a": fixed, "b": each}, "processors": 4}, {"queues": {"a": fixed}, "processors": 8}]
    assert schedule.capacity(workers) == {"a": 6, "b": 20}


def test_release_tells_what_beat_reads(site):
    own = site(FILES, "shop.settings", "shop.celery:app")
    own.own = ["database", "cache"]
    own.manage(
        """
        from datetime import timedelta
        from django.core.management import call_command
        from django.utils import timezone
        call_command("migrate", verbosity=0)
        from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask
        hourly, _ = IntervalSchedule.objects.get_or_create(every=1, period="hours")
        night = CrontabSchedule.objects.create(minute="5", hour="3", timezone="Europe/Berlin")
        soon = ClockedSchedule.objects.create(clocked_time=timezone.now() + timedelta(hours=2))
        make = lambda name, task="shop.tasks.report", **more: PeriodicTask.objects.create(name=name, task=task, **more)
        make("off", interval=hourly, enabled=False)
        make("nightly", crontab=night)
        make("once", clocked=soon, one_off=True)
        make("gone", "shop.tasks.gone", interval=hourly)
        make("lost", interval=hourly, queue="away")
        make("first", interval=hourly, one_off=True)
        make("later", interval=hourly, start_time=timezone.now() + timedelta(days=2))
        make("ended", interval=hourly, expires=timezone.now() - timedelta(days=2))
        make("each minute", "shop.tasks.gone", interval=hourly)
        make("paused", interval=hourly, enabled=False)
        say("done")
        """
    )
    workers = json.dumps([{"queues": {QUEUE: {"tasks": 0, "tasks_per_processor": 1}}, "processors": 3}])
    done = own.run(sys.executable, "-m", "coldframe.schedule", workers)
    assert done.returncode == 0, done.stderr
    said = {line.split("  ")[0]: line for line in done.stdout.splitlines()[1:]}
    assert ", 3 at the same time" in said[QUEUE] and "off" not in said and "paused" not in said
    assert f"shop.tasks.report to {QUEUE}: 1439 times, next at " in said["each minute"].replace("1440", "1439")
    for name in ("nightly", "once", "first"):
        assert f"shop.tasks.report to {QUEUE}: 1 time, next at" in said[name]
    for name in ("later", "ended"):
        assert "not within this time" in said[name]
    wrong = done.stdout.partition("Look at\n")[2]
    assert wrong == "gone: the release has no task shop.tasks.gone.\nlost: celery_queues has no queue away.\n"
