"""Counts how the attempts at each task end, by release, so that a deploy can compare a release with the one before.

A worker's main process counts in memory, and adds that to the Redis database of locks every 5 s: in the hash `runs:RELEASE`,
for each task `done NAME` and `failed NAME`, how many attempts ended so, and `seconds NAME` and `squares NAME`, the sums of the
seconds that the successful ones took and of their squares. An attempt has failed that ended by an exception, also if the task is
retried for it, by its time limit or with its process. A task that asks for a retry without an exception, to look again later, has
neither failed nor been done. Queue probes do not count.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import redis
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import worker_shutdown
from celery.worker import strategy

from coldframe import credentials, probe, seams

INTERVAL = 5.0  # seconds between two additions
# No failures: the task asked for that, or was revoked. A time limit is counted when Celery handles it, which comes with each pool.
OTHERWISE = (Ignore, Reject, Terminated, TimeLimitExceeded)
KEEP = 30 * 24 * 3600  # seconds for which the counts of a release are kept after the last one
logger = logging.getLogger(__name__)


class Runs:
    """What has been counted and not been added yet."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.lock, self.counts = threading.Lock(), Counter[str]()

    def done(self, task: str, seconds: float) -> None:
        """Count an attempt that was successful."""
        if task != probe.NAME:
            with self.lock:
                self.counts[f"done {task}"] += 1
                self.counts[f"seconds {task}"] += seconds  # type: ignore[assignment]
                self.counts[f"squares {task}"] += seconds**2  # type: ignore[assignment]

    def ended(self, task: str, error: Any) -> None:
        """Count an attempt that ended by an exception, if that is a failure."""
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        asked = isinstance(error, Retry) and error.exc is None
        if not asked and not isinstance(error, OTHERWISE):
            self.failed(task)

    def failed(self, task: str) -> None:
        """Count an attempt that failed."""
        if task != probe.NAME:
            with self.lock:
                self.counts[f"failed {task}"] += 1

    def add(self) -> None:
        """Add what was counted to what is recorded. What cannot be added now is kept for the next time."""
        with self.lock:
            counts, self.counts = self.counts, Counter()
        if not counts:
            return
        key = f"runs:{os.environ.get('RELEASE_ID', '')}"
        try:
            with credentials.locks() as client, client.pipeline() as pipe:
                for field, count in counts.items():
                    pipe.hincrbyfloat(key, field, count)
                pipe.expire(key, KEEP)
                pipe.execute()
        except redis.RedisError as error:
            logger.debug("What was counted of tasks is added later: %s", error)
            with self.lock:
                self.counts.update(counts)

    def keep_adding(self) -> None:
        """Add what was counted every 5 s, for as long as the process lives."""
        while True:
            time.sleep(INTERVAL)
            try:
                self.add()
            except Exception:
                logger.exception("What was counted of tasks was not recorded.")


runs = Runs()  # the process has one


def counted(*arguments: Any, **options: Any) -> Any:
    """Make the request class of a task, as Celery does, that also counts what was done."""
    base = create_request_cls(*arguments, **options)

    @seams.extends()
    class Request(base):  # type: ignore[misc, valid-type]
        def on_success(self, failed__retval__runtime: Any, **more: Any) -> Any:
            """Handle the end of the task: `on_failure` is called if it failed."""
            failed, _, seconds = failed__retval__runtime
            if not failed:
                runs.done(self.name, seconds)
            return super().on_success(failed__retval__runtime, **more)

    return Request


@worker_shutdown.connect
def on_worker_shutdown(**_: object) -> None:
    """Add what was counted last."""
    with suppress(Exception):
        runs.add()


def install() -> None:
    """Have workers count. Raises AttributeError where Celery has no such extension point."""
    seams.put(strategy, "create_request_cls", counted)


create_request_cls = strategy.create_request_cls
