"""The pool of processes, in which time limits hold.

- A task's hard time limit is at most that of its queue, for the worker's stop and the redelivery rest on it. billiard
  takes any that the message asks for.
- The limits of the application's settings hold, where the worker's command has some too: `take_from_settings`.
- It holds below the soft limit, which billiard would wait for first.
- It holds while the event loop waits for an answer, as from a broker that hangs (`keep_limits`). Celery would deliver
  such a task again, for its process was killed.
- A soft time limit interrupts a task alone, and not its process while that writes how the task has ended. A message
  longer than the pipe waits in it for the event loop: a signal that comes meanwhile would leave half of the message
  there, another would follow it, and Celery's main process ends at what it then reads.
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
from coldframe.worker import celery56, pool

LATE = 1.0  # seconds in which the event loop, if it turns, ends a task at its limit


@extends()
class Process(asynpool.Worker):
    """A process of the pool, which gets the signal of the soft limit but from the beginning of a task to its end."""

    def on_loop_start(self, pid: int) -> None:
        """Begin to take tasks."""
        put = self.outq.put

        def say(message: tuple[int, Any]) -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {SIG_SOFT_TIMEOUT})
            put(message)
            if message[0] == ACK:  # a task begins; what has come is for the one before
                while signal.sigtimedwait({SIG_SOFT_TIMEOUT}, 0):
                    pass
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIG_SOFT_TIMEOUT})

        self.outq.put = say
        super().on_loop_start(pid)


@extends()
class AsynPool(celery56.AsynPool):
    """The pool that Celery uses with an event loop."""

    Worker = Process

    def apply_async(self, *arguments: Any, **options: Any) -> Any:
        """Give the pool a task, with limits that can hold."""
        hard, soft = options.get("timeout") or self.timeout, options.get("soft_timeout") or self.soft_timeout
        if self.timeout and hard > self.timeout:
            options["timeout"] = hard = self.timeout  # the queue's
        if hard and soft and soft >= hard:
            options["soft_timeout"] = hard * 4 / 5  # as for a queue that says nothing
        return super().apply_async(*arguments, **options)

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:
        """Say why a task's process is gone: `keep_limits` has ended it, or something else."""
        if is_late(self, job):
            self._on_hard_timeout(job._job)
        else:
            super().on_job_process_lost(job, pid, exitcode)


def is_late(processes: Any, job: Any) -> bool:
    """Whether a pool's job has run into its hard time limit, and the event loop has not ended it."""
    began, limit = getattr(job, "_time_accepted", None), job._timeout or processes.timeout
    return bool(began and limit and not job.ready() and time.monotonic() > began + limit + LATE)


def keep_limits(worker: Any) -> None:
    """End what runs into its hard time limit while the event loop waits for an answer, as of a broker that hangs.

    For a thread; the event loop learns of it when it turns again.
    """
    while True:
        for job in pool.jobs(worker):
            if is_late(worker.pool._pool, job):
                with suppress(ProcessLookupError):
                    os.kill(job._worker_pid, signal.SIGKILL)
        time.sleep(LATE)


@worker_init.connect
def take_from_settings(sender: Any, **_: Any) -> None:
    """Give each task that has no time limits those of the application's settings, before processes are forked."""
    for task in sender.app.tasks.values():
        for name in ("time_limit", "soft_time_limit"):
            if getattr(task, name) is None:
                setattr(task, name, sender.app.conf[f"task_{name}"])


def install() -> None:
    """Have Celery's `prefork` use this pool."""
    seams.put(TaskPool, "Pool", AsynPool)


def demand(workers_pool: Any) -> None:
    """Raise TypeError when a worker with a pool of processes has not this one."""
    if isinstance(workers_pool, TaskPool):
        seams.demand(workers_pool._pool, AsynPool)
