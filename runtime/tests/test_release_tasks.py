"""What a release says of its tasks, of real tasks of every kind, and what is kept for them in the database and in the broker."""

import contextlib
import functools
import json
import sys
import uuid

import pytest
from celery import Celery, Task
from coldframe.release import shapes
from coldframe.worker import unknown
from conftest import LONGEST, QUEUE

FILES = {
    "shop/__init__.py": "from shop.celery import app",
    "shop/settings.py": """
        from pathlib import Path
        SECRET_KEY = "x"
        INSTALLED_APPS = ["shop", "django_celery_beat"]
        USE_TZ = True
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}}
        CELERY_BEAT_SCHEDULE = {
            "nightly": {"task": "shop.tasks.add", "schedule": 86400, "args": [1], "kwargs": {"second": 2}},
            "elsewhere": {"task": "shop.tasks.gone", "schedule": 60, "options": {"queue": "away"}},
        }
        """,
    "shop/celery.py": """
        from celery import Celery
        app = Celery("shop")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
        """,
    "shop/tasks.py": """
        import functools
        from celery import Task, shared_task
        from shop.celery import app

        @shared_task
        def add(first, second=1):
            return first + second

        @shared_task(bind=True)
        def bound(self, to):
            pass

        @shared_task(bind=True, autoretry_for=(OSError,), max_retries=1)
        def retried(self, to, *, cc=None):
            pass

        @shared_task(typing=False)
        def untyped(to):
            pass

        @shared_task(name="only positional")
        def only(to, /, *more, **others):
            pass

        def logged(function):
            @functools.wraps(function)
            def run(*args, **kwargs):
                return function(*args, **kwargs)
            return run

        @shared_task
        @logged
        def decorated(to):
            pass

        class Report(Task):
            name = "shop.Report"
            def run(self, month):
                pass

        app.register_task(Report())
        """,
}


app = Celery("kinds", set_as_current=False)


def adding(function):
    """Give a function an argument that its caller does not know, and take one away that it does."""

    @functools.wraps(function)
    def run(*args, _tenant=None, **kwargs):
        return function(*args, "session", **kwargs)

    return run


def plain(order):
    """Take one argument."""


def bound(self, order):
    """Take one argument beside the task."""


def within(order, session):
    """Take one argument, and one that a decorator gives."""


def bound_within(self, order, session):
    """Do so beside the task."""


class Batches(Task):
    """Takes the messages itself, and calls its function with a list of them, as celery-batches does."""

    def Strategy(self, *_):
        """Start tasks in an own way."""


class Called(Task):
    """Is called in a way of its own."""

    def __call__(self, *args, **kwargs):
        """Call the function without what it does not know."""


@pytest.mark.parametrize(
    ("options", "function", "known"),
    [
        ({}, plain, True),
        ({"bind": True}, bound, True),
        ({"autoretry_for": (OSError,)}, plain, True),
        ({}, adding(within), False),
        ({"bind": True}, adding(bound_within), False),
        ({"autoretry_for": (OSError,)}, adding(within), False),
        ({"typing": False}, plain, False),
        ({"base": Batches}, plain, False),
        ({"base": Called}, plain, False),
    ],
)
def test_call_is_judged_only_where_celery_judges_it_too(options, function, known):
    name = uuid.uuid4().hex
    app.task(name=name, **options)(function)
    task = app.tasks[name]
    for args, kwargs in (([1], []), ([], []), ([1, 2], []), ([1], ["_tenant"])):
        refused = bool(unknown.misfit(task, args, kwargs))
        assert bool(shapes.misfit(shapes.parameters(task), len(args), kwargs)) == refused
        assert refused == (known and (args, kwargs) != ([1], [])), (args, kwargs)
        if known:
            with pytest.raises(TypeError) if refused else contextlib.nullcontext():
                task.__header__(*args, **dict.fromkeys(kwargs))


@pytest.fixture
def own(site):
    """A project with a database."""
    made = site(FILES, "shop.settings", "shop.celery:app")
    made.own = ["database", "cache"]
    made.manage("from django.core.management import call_command\ncall_command('migrate', verbosity=0)\nsay('done')")
    return made


def told(own):
    """What the release says."""
    done = own.run(sys.executable, "-m", "coldframe.release.tasks")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fits(found, task, args, *kwargs):
    """Whether a call fits a task."""
    return not shapes.misfit(found["tasks"][task]["parameters"], args, kwargs)


def test_tasks_of_every_kind_are_told_with_what_a_caller_gives(own):
    found = told(own)
    assert set(found["tasks"]) == {"only positional", "shop.Report"} | {
        f"shop.tasks.{name}" for name in ("add", "bound", "retried", "untyped", "decorated")
    }
    assert {task["queue"] for task in found["tasks"].values()} == {QUEUE} and found["queues"] == [QUEUE]
    assert fits(found, "shop.tasks.add", 1, "second") and not fits(found, "shop.tasks.add", 0)
    for name in ("bound", "retried"):
        assert fits(found, f"shop.tasks.{name}", 1), name
        assert not fits(found, f"shop.tasks.{name}", 2), name
    for name in ("untyped", "decorated"):  # what Celery does not check either
        assert fits(found, f"shop.tasks.{name}", 2), name
    assert (
        fits(found, "shop.tasks.retried", 1, "cc")
        and fits(found, "shop.Report", 1)
        and not fits(found, "shop.Report", 0)
    )
    assert fits(found, "only positional", 4, "x") and not fits(found, "only positional", 0, "to")
    assert found["schedule"] == {
        "elsewhere": {"task": "shop.tasks.gone", "queue": "away", "args": 0, "kwargs": []},
        "nightly": {"task": "shop.tasks.add", "queue": "", "args": 1, "kwargs": ["second"]},
    }
    assert found["stored"] == {"messages": [], "held": 0, "read": 0} and found["entries"] == {}


def test_what_the_database_keeps_is_told_without_the_values(own):
    own.manage(
        f"""
        from django_celery_beat.models import IntervalSchedule, PeriodicTask
        from shop.tasks import add, bound
        every, _ = IntervalSchedule.objects.get_or_create(every=1, period="hours")
        make = lambda name, **more: PeriodicTask.objects.create(name=name, interval=every, **more)
        make("on", task="shop.tasks.add", args='["secret"]', kwargs='{{"second": 1}}')
        make("off", task="shop.tasks.add", enabled=False)
        make("odd", task="shop.tasks.gone", args="no JSON", queue="away")
        for seconds in (1, 2, 3):
            add.apply_async(["secret"], countdown={LONGEST} * 10 + seconds)
        bound.apply_async([], {{"to": "secret"}}, countdown={LONGEST} * 10, link=add.s(1))
        say("done")
        """
    )
    found = told(own)
    assert "secret" not in json.dumps(found)
    assert found["entries"] == {
        "odd": {"task": "shop.tasks.gone", "queue": "away", "args": None, "kwargs": []},
        "on": {"task": "shop.tasks.add", "queue": "", "args": 1, "kwargs": ["second"]},
    }
    assert (found["stored"]["held"], found["stored"]["read"]) == (4, 4)
    assert sorted(found["stored"]["messages"], key=lambda each: each["task"]) == [
        {"task": "shop.tasks.add", "args": 1, "kwargs": [], "further": [], "unread": "", "queue": QUEUE, "count": 3},
        {
            "task": "shop.tasks.bound",
            "args": 0,
            "kwargs": ["to"],
            "further": ["shop.tasks.add"],
            "unread": "",
            "queue": QUEUE,
            "count": 1,
        },
    ]


OUTBOX = """
def stored():
    yield "shop.tasks.add", [1], {"second": "secret"}
    yield "shop.tasks.add", (2,), {"second": 3}
    yield "shop.tasks.old", (), {}

def failing():
    yield from stored()
    raise LookupError("no table")

odd = lambda: ["shop.tasks.add"]
nothing = None
"""


def test_what_the_application_keeps_itself_is_told_without_the_values(own):
    (own.folder / "shop/outbox.py").write_text(OUTBOX)
    assert told(own)["kept"] == {"messages": []}
    own.stored_tasks = "shop.outbox:stored"
    shape = {"further": [], "unread": "", "queue": ""}
    assert told(own)["kept"]["messages"] == [
        {"task": "shop.tasks.add", "args": 1, "kwargs": ["second"], "count": 2} | shape,
        {"task": "shop.tasks.old", "args": 0, "kwargs": [], "count": 1} | shape,
    ]
    for name, why in {
        "failing": "LookupError: no table",
        "odd": "ValueError: too many values to unpack (expected 3)",
        "nothing": "ImportError: app_stored_tasks is 'shop.outbox:nothing', which is no function.",
        "absent": "ImportError: app_stored_tasks is 'shop.outbox:absent', and Python says: module 'shop.outbox' has no attribute 'absent'.",
    }.items():
        own.stored_tasks = f"shop.outbox:{name}"
        assert told(own)["kept"] == {"error": f"shop.outbox:{name} failed with {why}"}


def test_stored_tasks_beyond_those_that_are_read_are_counted_by_their_names(own):
    found = own.manage(
        f"""
        from coldframe.release import tasks
        from shop.tasks import add, bound
        tasks.MOST = 2
        for seconds in (1, 2, 3):
            add.apply_async([1], countdown={LONGEST} * 10 + seconds)
        bound.apply_async([1], countdown={LONGEST} * 20)
        say(tasks.stored())
        """
    )
    assert (found["held"], found["read"]) == (4, 2)
    assert {(each["task"], each["args"]): each["count"] for each in found["messages"]} == {
        ("shop.tasks.add", 1): 2,
        ("shop.tasks.add", None): 1,
        ("shop.tasks.bound", None): 1,
    }


def test_messages_are_read_as_celery_and_kombu_write_them(own, server):
    own.manage(
        """
        from celery import chain, current_app
        from shop.tasks import add, bound, retried
        add.apply_async([1], {"second": "secret"})
        bound.apply_async(["a"], countdown=5)
        chain(add.s(1), add.s(2), retried.s()).apply_async()
        current_app.send_task("shop.tasks.old", [1, 2], compression="zlib")
        say("sent")
        """
    )
    found = [shapes.of_queue(text) for text in reversed(server.client.lrange(QUEUE, 0, -1))]
    assert [(each["task"], each["args"], each["kwargs"], each["further"]) for each in found] == [
        ("shop.tasks.add", 1, ["second"], []),
        ("shop.tasks.bound", 1, [], []),
        ("shop.tasks.add", 1, [], ["shop.tasks.add", "shop.tasks.retried"]),
        ("shop.tasks.old", None, [], []),
    ]
    assert found[3]["unread"] and "secret" not in json.dumps(found)


def test_message_of_the_first_protocol_is_told_as_such(own, server):
    own.manage(
        """
        from shop.tasks import add
        from celery import current_app as app
        app.conf.task_protocol = 1
        app.amqp.__dict__.pop("_send_task", None)
        message = app.amqp.as_task_v1("1", "shop.tasks.add", [1], {})
        with app.producer_or_acquire() as producer:
            producer.publish(message.body, routing_key=app.conf.task_default_queue, exchange="", headers=message.headers)
        say("sent")
        """
    )
    with pytest.raises(ValueError, match="protocol 1"):
        shapes.of_queue(server.client.lindex(QUEUE, 0))
