"""Counts how the tasks of a release end, so that a deploy can compare a release with the one before.

A worker's main process counts in memory, and adds that to the Redis database of locks every 5 s: to the hash `runs:RELEASE:NUMBER`,
one for each ten minutes. For each task it has `done NAME` and `failed NAME`, how many were successful at their first attempt and how
many failed at it; `timed NAME`, how many of the successful ones were timed; and `logs NAME` and `squares NAME`, the sums of the
natural logarithms of their seconds and of the squares of these.

- Only the first attempt at a task counts: its retries fail for the same reason.
- It has failed if it ended by an exception, also if the task is retried for it, by its time limit or with its process. A task that
  asks for a retry without an exception, to look again later, has neither failed nor been done.
- The first runs of a task in each process of the pool are not timed: they import and connect.
- Queue probes do not count.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import worker_shutdown
from celery.worker import strategy

from coldframe import credentials, probe, seams

INTERVAL = 5.0  # seconds between two additions
SPAN = 600  # seconds that a hash is for
KEEP = 25 * 3600  # seconds for which a hash is kept
SHORTEST = 1e-4  # seconds that a task is taken to last at least
# No failures: the task asked for that, or was revoked. A time limit is counted when Celery handles it, which comes with each pool.
OTHERWISE = (Ignore, Reject, Terminated, TimeLimitExceeded)
HANDLED = "During handling of the above exception, another exception occurred"  # Python's words in a traceback
logger = logging.getLogger(__name__)


class Runs:
    """What has been counted and not been added yet."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.lock, self.counts = threading.Lock(), dict[str, float]()
        self.recording = threading.Lock()  # so that a worker that stops waits for what its thread is recording
        self.slots = 1  # how many tasks the pool runs at the same time
        self.begun = Counter[str]()  # successful runs of each task, up to that number

    def add(self, task: str, numbers: dict[str, float]) -> None:
        """Add to what was counted of a task."""
        if task != probe.NAME:
            with self.lock:
                for kind, number in numbers.items():
                    self.counts[f"{kind} {task}"] = self.counts.get(f"{kind} {task}", 0) + number

    def done(self, request: Any, seconds: float) -> None:
        """Count a task that was successful."""
        if retried(request):
            return
        log = math.log(max(seconds, SHORTEST))
        numbers = {"done": 1.0}
        if self.begun[request.name] >= self.slots:
            numbers |= {"timed": 1.0, "logs": log, "squares": log**2}
        else:
            self.begun[request.name] += 1
        self.add(request.name, numbers)

    def ended(self, request: Any, information: Any) -> None:
        """Count a task that ended by an exception, if that is a failure.

        :param information: billiard's ExceptionInfo.
        """
        error = information.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        asked = isinstance(error, Retry) and error.exc is None and HANDLED not in str(information.traceback)
        if not asked and not isinstance(error, OTHERWISE):
            self.failed(request)

    def failed(self, request: Any) -> None:
        """Count a task that failed."""
        if not retried(request):
            self.add(request.name, {"failed": 1.0})

    def record(self) -> None:
        """Add what was counted to what is recorded. What cannot be recorded now is kept for the next time."""
        with self.recording:
            self.write()

    def write(self) -> None:
        """Do that."""
        with self.lock:
            counts, self.counts = self.counts, {}
        if not counts:
            return
        key = f"runs:{os.environ.get('RELEASE_ID', '')}:{int(time.time() / SPAN)}"
        try:
            with credentials.locks() as client, client.pipeline() as pipe:
                for field, count in counts.items():
                    pipe.hincrbyfloat(key, field, count)
                pipe.expire(key, KEEP)
                pipe.execute()
        except Exception:
            with self.lock:
                for field, count in counts.items():
                    self.counts[field] = self.counts.get(field, 0) + count
            raise

    def keep_recording(self) -> None:
        """Record what was counted every 5 s, for as long as the process lives."""
        said = ""
        while True:
            time.sleep(INTERVAL)
            try:
                self.record()
                said = ""
            except Exception as error:
                if said != (said := type(error).__name__):
                    logger.warning("What was counted of tasks is recorded later: %s: %s", said, error)


runs = Runs()  # the process has one


def retried(request: Any) -> bool:
    """Whether a request is not the first attempt at its task."""
    return bool(request.request_dict.get("retries"))


def counted(*arguments: Any, **options: Any) -> Any:
    """Make the request class of a task, as Celery does, that also counts what was done."""
    base = create_request_cls(*arguments, **options)

    @seams.extends()
    class Request(base):  # type: ignore[misc, valid-type]
        def on_success(self, failed__retval__runtime: Any, **more: Any) -> Any:
            """Handle the end of the task: `on_failure` is called if it failed."""
            failed, _, seconds = failed__retval__runtime
            if not failed:
                runs.done(self, seconds)
            return super().on_success(failed__retval__runtime, **more)

    return Request


@worker_shutdown.connect
def on_worker_shutdown(**_: object) -> None:
    """Record what was counted last."""
    with suppress(Exception):
        runs.record()


def install() -> None:
    """Have workers count. Raises AttributeError where Celery has no such extension point."""
    seams.put(strategy, "create_request_cls", counted)


create_request_cls = strategy.create_request_cls
