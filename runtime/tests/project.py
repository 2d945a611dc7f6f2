"""An application for the tests: tasks that note when they begin and end, and fail in ways of their own."""

import json
import os
import signal
import time
from pathlib import Path

from celery import Celery, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_ready

app = Celery("project")
app.conf.update(json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text()))
app.conf.result_backend = os.environ["RESULTS"]


def note(task, word):
    """Add a line to the file of notes; lines of that length are not mixed with others."""
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{task.request.id} {word} {os.getpid()} {time.time()}\n")


@shared_task(bind=True)
def hold(self, seconds=0):
    """Take some seconds."""
    note(self, "begins")
    time.sleep(seconds)
    note(self, "ends")


@shared_task(bind=True)
def hold_until(self, moment):
    """Take until a moment, in seconds since 1970."""
    note(self, "begins")
    time.sleep(max(0, moment - time.time()))
    note(self, "ends")


@shared_task(bind=True, rate_limit="2/s")
def limited(self):
    """Be quick, but not too often."""
    note(self, "begins")
    note(self, "ends")


@shared_task(bind=True)
def hang(self):
    """Take for ever, whatever the soft limit."""
    note(self, "begins")
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            note(self, "is interrupted")


@shared_task(bind=True, max_retries=1, default_retry_delay=0)
def poison(self):
    """Kill the process that executes this."""
    note(self, "begins")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, max_retries=1, default_retry_delay=1)
def leave(self):
    """Ask Python to exit. Celery stores that a task is retried after it has sent it again: without a delay, that would come last."""
    note(self, "begins")
    raise SystemExit(3)


@shared_task(bind=True)
def block(self, seconds):
    """Take some seconds of the processor."""
    note(self, "begins")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@shared_task(bind=True)
def interrupted(self, seconds):
    """Take some seconds, but end at the soft limit."""
    note(self, "begins")
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        note(self, "is interrupted")


@shared_task(bind=True, max_retries=2, autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0)
def flaky(self):
    """Fail, and be retried for it."""
    raise ConnectionError("no answer")


@shared_task(bind=True, max_retries=2, default_retry_delay=0)
def look(self):
    """Look, and look again later."""
    if self.request.retries < 2:
        raise self.retry()


@shared_task(bind=True, max_retries=1, default_retry_delay=0)
def look_after_error(self):
    """Fail, and be retried for it without saying so."""
    try:
        raise ConnectionError("no answer")
    except ConnectionError:
        if self.request.retries < 1:
            raise self.retry()  # noqa: B904  # as many write it


def signs(self, name, *more):
    """Note that a release accepts more than a name."""
    note(self, f"signs {name} {len(more)}")


def sign(self, name):
    """Note that a release accepts a name alone."""
    note(self, f"signs {name}")


shared_task(bind=True, name="project.sign")(signs if os.environ.get("NEXT") else sign)


class Long(Exception):
    """Much to send, and little to log."""

    def __str__(self):
        """Say little."""
        return "long"


@shared_task(bind=True, soft_time_limit=2, time_limit=30)
def fail(self):
    """Fail with more than a pipe holds, a second before the soft limit."""
    note(self, "begins")
    time.sleep(1)
    raise Long("x" * (8 << 20))


@worker_ready.connect(weak=False)
def on_worker_ready(sender, **_):
    """By SIGUSR1 the connection for remote control seems half open, as after a network cut."""

    def half_open(*_):
        for channel in sender.connection.transport.channels:
            if client := vars(channel).get("subclient"):
                client.health_check_response_counter = 2

    signal.signal(signal.SIGUSR1, half_open)
