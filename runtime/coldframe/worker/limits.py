"""Enforces time limits in the prefork pool. What `within` says holds for the pool `gevent` too (coldframe.worker.green).

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
from celery.concurrency import ALIASES, asynpool, solo
from celery.concurrency.prefork import TaskPool
from celery.signals import worker_init

from coldframe import seams
from coldframe.seams import extends
from coldframe.worker import celery56, pool, results

OWN = {"threads": "coldframe.worker.threads:TaskPool", "gevent": "coldframe.worker.green:TaskPool"}
LATE = 1.0  # seconds within which the event loop, if it turns, ends a task at its limit


def within(
    hard: float | None, soft: float | None, longest: float | None, soft_longest: float | None
) -> tuple[float | None, float | None]:
    """Return the hard and the soft time limit of a task, in seconds; None for no limit.

    :param hard: what the message or the task asks for; None or 0 for nothing. `soft` is the same.
    :param longest: the queue's. `soft_longest` is what counts where nothing is asked for.
    """
    hard, soft = hard or longest, soft or soft_longest
    if hard and longest and hard > longest:
        hard = longest
    if hard and soft and soft >= hard:
        soft = hard * 4 / 5  # the default of a queue, too (plugins/filter/queues.py)
    return hard or None, soft or None


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
        asked = options.get("timeout"), options.get("soft_timeout")
        options["timeout"], options["soft_timeout"] = within(*asked, self.timeout, self.soft_timeout)
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
    """Have Celery's `prefork` use this pool, and `threads` and `gevent` those of `worker/threads.py` and `worker/green.py`."""
    seams.put(TaskPool, "Pool", AsynPool)
    if missing := set(OWN) - set(ALIASES):
        raise KeyError(f"Celery has no pool {missing}: coldframe does not work with this version of it.")
    ALIASES.update(OWN)


def require(workers_pool: Any) -> None:
    """Raise TypeError when a worker does not use the pool of this package, unless it has the pool `solo`."""
    if isinstance(workers_pool, TaskPool):
        seams.require(workers_pool._pool, AsynPool)
    elif not isinstance(workers_pool, solo.TaskPool) and not hasattr(workers_pool, "withdraw"):
        raise TypeError(f"{workers_pool!r} is no pool of coldframe: an extension point has no effect.")
