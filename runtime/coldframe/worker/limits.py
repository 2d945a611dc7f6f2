"""Enforces time limits in the prefork pool.

- A task's hard time limit is at most that of its queue: the stop of the worker and redelivery depend on it. billiard
  accepts any limit that a message asks for.
- It also holds when it is shorter than the soft time limit. billiard would wait for the soft one first.
- It also holds while the event loop waits for a reply, as from a broker that hangs (`keep_limits`). Celery would treat
  such a task as one whose process was killed, and deliver it again.
- The limits in the application's settings hold beside those of the worker's command line (`take_from_settings`).
- A soft time limit interrupts the task, but not its process while that writes the result. A result that is longer than
  the pipe waits for the event loop. A signal at that moment would leave half of a message in the pipe, followed by
  another one, and Celery's main process exits when it reads that.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

from billiard.pool import ACK, SIG_SOFT_TIMEOUT
from celery.concurrency import asynpool
from celery.concurrency.prefork import TaskPool
from celery.signals import worker_init

from coldframe import seams
from coldframe.seams import extends
from coldframe.worker import celery56, pool, results

LATE = 1.0  # seconds within which the event loop, if it turns, ends a task at its limit


@extends()
class Process(asynpool.Worker):
    """A child process, which receives the signal of the soft time limit only while it executes a task."""

    def on_loop_start(self, pid: int) -> None:
        """Start to accept tasks."""
        put = self.outq.put

        def say(message: tuple[int, Any]) -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {SIG_SOFT_TIMEOUT})
            put(message)
            if message[0] == ACK:  # a task starts; pending signals are for the one before
                while signal.sigtimedwait({SIG_SOFT_TIMEOUT}, 0):
                    pass
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIG_SOFT_TIMEOUT})

        self.outq.put = say
        super().on_loop_start(pid)


@extends()
class AsynPool(celery56.AsynPool):
    """The prefork pool that Celery uses with an event loop."""

    Worker, ResultHandler = Process, results.ResultHandler

    def apply_async(self, *arguments: Any, **options: Any) -> Any:
        """Pass a task to the pool, with limits that it can enforce."""
        hard, soft = options.get("timeout") or self.timeout, options.get("soft_timeout") or self.soft_timeout
        if self.timeout and hard > self.timeout:
            options["timeout"] = hard = self.timeout  # the queue's
        if hard and soft and soft >= hard:
            options["soft_timeout"] = hard * 4 / 5  # the default of a queue, too (plugins/filter/queues.py)
        return super().apply_async(*arguments, **options)

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:
        """Handle the loss of a process: a time limit if `keep_limits` has killed it."""
        if is_late(self, job):
            self._on_hard_timeout(job._job)
        else:
            super().on_job_process_lost(job, pid, exitcode)


def is_late(processes: Any, job: Any) -> bool:
    """Whether a job is past its hard time limit, and the event loop has not ended it."""
    began, limit = getattr(job, "_time_accepted", None), job._timeout or processes.timeout
    return bool(began and limit and not job.ready() and time.monotonic() > began + limit + LATE)


def keep_limits(worker: Any) -> None:
    """Kill processes whose tasks are past their hard time limit, while the event loop waits for a reply.

    Runs in a thread, for as long as the process lives. The event loop handles the loss of the process at its next turn.
    """
    while True:
        for job in pool.jobs(worker):
            if is_late(worker.pool._pool, job):
                with suppress(ProcessLookupError):
                    os.kill(job._worker_pid, signal.SIGKILL)
        time.sleep(LATE)


@worker_init.connect
def take_from_settings(sender: Any, **_: Any) -> None:
    """Set the time limits of the application's settings on each task that has none, before processes are forked."""
    for task in sender.app.tasks.values():
        for name in ("time_limit", "soft_time_limit"):
            if getattr(task, name) is None:
                setattr(task, name, sender.app.conf[f"task_{name}"])


def install() -> None:
    """Have Celery's `prefork` use this pool."""
    seams.put(TaskPool, "Pool", AsynPool)


def require(workers_pool: Any) -> None:
    """Raise TypeError when a prefork worker does not use this pool."""
    if isinstance(workers_pool, TaskPool):
        seams.require(workers_pool._pool, AsynPool)
