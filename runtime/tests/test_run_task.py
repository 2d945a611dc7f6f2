"""What is sent by hand is sent as the application's own code sends it, and what cannot be is not."""

import json
import sys

import pytest
from conftest import QUEUE, WORKER

FILES = {
    "shop/__init__.py": "from shop.celery import app",
    "shop/settings.py": """
        SECRET_KEY = "x"
        INSTALLED_APPS = ["shop"]
        USE_TZ = True
        CELERY_RESULT_BACKEND = "redis://"
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
        def add(first, second=1):
            return first + second

        @shared_task(name="sum it up", expires=60, ignore_result=True)
        def total(*numbers):
            pass

        @shared_task
        def divide(by):
            return 1 / by
        """,
}


@pytest.fixture
def send(site, server):
    """Send a task of a project by hand; return the project's run, with its exit status, output and errors."""
    own = site(FILES, "shop.settings", "shop.celery:app")

    def run(*words):
        done = own.run(sys.executable, "-m", "coldframe.run_task", *words)
        return done.returncode, done.stdout, done.stderr

    run.own = own
    return run


def test_tasks_are_listed_with_their_queues(send):
    names = ["shop.tasks.add", "shop.tasks.divide", "sum it up"]
    assert send() == (0, "".join(f"{name}  ({QUEUE})\n" for name in names), "")


def test_task_is_sent_with_what_its_own_options_say(send, server):
    status, said, _ = send("sum it up", "--args=[1, -2]")
    message = json.loads(server.client.lindex(QUEUE, 0))
    assert (status, said) == (0, f"sum it up was sent to the queue {QUEUE}: {message['headers']['id']}\n")
    assert message["headers"]["task"] == "sum it up" and message["headers"]["expires"]
    assert (
        message["headers"]["argsrepr"] == "[1, -2]" and message["properties"]["delivery_info"]["routing_key"] == QUEUE
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["shop.task.add"], "Nothing was sent: the application has no task shop.task.add. Did you mean shop.tasks.add"),
        (["add"], "Did you mean shop.tasks.add?"),
        (["zzz"], "It has: shop.tasks.add, shop.tasks.divide, sum it up."),
        (["shop.tasks.add"], "shop.tasks.add cannot be sent: add() missing 1 required positional argument: 'first'"),
        (["shop.tasks.add", '--kwargs={"third": 3}'], "add() got an unexpected keyword argument 'third'"),
        (["shop.tasks.add", "--args=[1]", "--queue=slow"], f"celery_queues has no queue slow. It has: {QUEUE}."),
        (["sum it up", "--wait=1"], "the result of sum it up is not kept (ignore_result)"),
        (["shop.tasks.add", "--args={}"], "argument --args: invalid JSON (list) value: '{}'"),
    ],
)
def test_what_cannot_be_is_not_sent(send, server, words, says):
    status, said, errors = send(*words)
    assert (status, said) == (2, "") and says in errors and "Traceback" not in errors
    assert server.client.llen(QUEUE) == 0


def test_end_of_a_task_is_awaited(send, run):
    status, said, errors = send("shop.tasks.add", "--args=[1]", "--wait=0.5")
    assert status == 1 and errors == "It has not ended within 0.5 s, and goes on; its state is PENDING.\n"
    run(send.own, *WORKER)
    status, said, _ = send("shop.tasks.add", '--args=["ä"]', '--kwargs={"second": "b"}', "--wait=30")
    assert (status, said.splitlines()[1]) == (0, '"äb"')
    status, _, errors = send("shop.tasks.divide", "--args=[0]", "--wait=30")
    assert status == 1 and "ZeroDivisionError: division by zero" in errors
