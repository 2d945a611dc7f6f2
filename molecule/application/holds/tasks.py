"""A task that takes its time, and notes when it began and when it ended, in which process."""

import json
import os
import time
from pathlib import Path

from celery import Task, shared_task
from django.conf import settings


# One whose process was killed is tried again soon; Celery would wait for three minutes.
@shared_task(name="holds.tasks.hold", bind=True, ignore_result=False, default_retry_delay=1)
def hold(self: Task, key: str, seconds: int) -> str:
    """Hold a place of a worker for some seconds; return the worker's name."""
    note(event="begin", key=key, seconds=seconds, worker=self.request.hostname)
    time.sleep(seconds)
    note(event="end", key=key, seconds=seconds, worker=self.request.hostname)
    return self.request.hostname


def note(**facts: str | int) -> None:
    """Append one line, in one write: it outlives the process, however that ends."""
    facts |= {"release": settings.RELEASE_ID, "process": os.getpid(), "at": time.time()}
    with Path(settings.MEDIA_ROOT, "holds.jsonl").open("ab", buffering=0) as file:
        file.write(json.dumps(facts).encode() + b"\n")


def work(self: Task, key: str, part: int) -> None:
    """Note that a part of an entry of the ledger was done; one with the header `retried` is tried a second time first."""
    if getattr(self.request, "retried", False) and not self.request.retries:
        raise self.retry(countdown=15)
    note(event="ledger", key=key, part=part)


def work_signed(self: Task, key: str, part: int, name: str) -> None:
    """Note the same: this one must be told who asks."""
    work(self, key, part)


def work_perhaps_signed(self: Task, key: str, part: int, name: str = "") -> None:
    """Note the same: this one may be told who asks."""
    work(self, key, part)


# The ledger's tasks, which change with the release: one's name does, and the other's parameters. The web sends the
# last of the names (holds.ledger).
NAMES = getattr(settings, "LEDGER", ["first"])
TASKS = {name: shared_task(name=f"holds.ledger.{name}", bind=True, ignore_result=False)(work) for name in NAMES}
SIGNED = getattr(settings, "LEDGER_SIGNED", "")
SIGNATURES = {"": work, "always": work_signed, "perhaps": work_perhaps_signed}
signed = shared_task(name="holds.ledger.signed", bind=True, ignore_result=False)(SIGNATURES[SIGNED])
