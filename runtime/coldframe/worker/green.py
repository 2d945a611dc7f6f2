"""Extends the pool `gevent`, which runs tasks side by side in green threads. Imported only with gevent, after it has patched Python.

- A task for which there is no room waits in its own green thread, and is given back when the worker stops or loses its
  connection. With Celery 5.7 the event loop would wait for room, and everything else for the event loop.
- The soft time limit is enforced too, and no task gets more than the hard one of its queue. Both take effect at the next
  moment at which the task waits for something: one that computes is not interrupted.
- A lost connection for remote control is replaced.
- A task is acknowledged outside of the time limit.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.concurrency import base, gevent
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import pidbox
from gevent import Greenlet, GreenletExit, Timeout, getcurrent, sleep
from gevent.lock import Semaphore

from coldframe import seams
from coldframe.seams import extends
from coldframe.worker import limits, threads

RETRY = 2.0  # seconds until a lost connection for remote control is replaced
logger = logging.getLogger(__name__)
LATE = object()  # the result of a task that has reached its hard time limit


@extends()
class Control(pidbox.gPidbox):
    """Remote control, which has a connection of its own with this pool."""

    def loop(self, c: Any) -> None:
        """Answer commands. A connection that is lost is replaced: Celery 5.7 would answer none any more."""
        while True:
            try:
                super().loop(c)
                return
            except c.connection_errors as error:
                logger.warning("The connection for remote control is lost: %s", error)
                stopped = self._node_stopped
            sleep(RETRY)
            if self._node_stopped is not stopped or not c.connection:
                return  # the consumer starts it again


class Run(Greenlet):
    """The execution of a task."""

    task = ""  # its id
    begun = withdrawn = False

    def terminate(self, signal: Any) -> None:
        """Do nothing: Celery calls this when `terminate_job` has ended it."""


@extends("execute", "tasks", "withdraw")
class TaskPool(gevent.TaskPool):
    """Celery's pool of green threads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Prepare. The consumer is made afterwards, with its remote control."""
        super().__init__(*arguments, **options)
        seams.put(pidbox, "gPidbox", Control)

    def on_start(self) -> None:
        """Start without tasks. The pool itself has no limit, so that it never blocks who gives it a task."""
        super().on_start()
        self._pool, self.room = self.Pool(), Semaphore(self.limit)

    @property
    def num_processes(self) -> int:
        """How many tasks may run. In Celery 5.4 it is how many do."""
        return int(self.limit)

    def on_apply(self, target: Any, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        """Execute a task as soon as there is room."""
        run = Run(self.execute, target, args, **options)
        run.task = options.get("correlation_id", "")
        self._pool.start(run)
        return run

    def execute(
        self,
        target: Any,
        args: Any,
        callback: Any = None,
        accept_callback: Any = None,
        error_callback: Any = None,
        timeout_callback: Any = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        **_: Any,
    ) -> None:
        """Execute a task within its time limits. Runs in a green thread."""
        hard, soft = limits.within(timeout, soft_timeout, self.timeout, self.options.get("soft_timeout"))
        end = Timeout(hard)

        def limited(*arguments: Any) -> Any:
            try:
                with end, Timeout(soft, SoftTimeLimitExceeded(soft)):
                    return target(*arguments)
            except GreenletExit:
                return None  # revoked; `Request.terminate` does the rest
            except Timeout as timeout:
                if timeout is not end:
                    raise
                return LATE

        def done(result: Any) -> None:
            if result is LATE:
                timeout_callback(False, hard)
            elif result is not None:
                callback(result)

        with self.room:
            run = getcurrent()
            if run.withdrawn:  # there was room in the moment in which it was taken back
                return
            run.begun = True
            base.apply_target(threads.failing(limited, error_callback), args, {}, done, accept_callback, pid=id(run))

    def tasks(self) -> set[str]:
        """Return the ids of the tasks that run or wait. One that has ended runs until it is acknowledged."""
        return {run.task for run in self._pool if not run.withdrawn}

    def withdraw(self, task: str) -> bool:
        """Take back a task that has not begun; return whether it has not.

        :param task: its id.
        """
        waiting = [run for run in self._pool if run.task == task and not run.begun]
        for run in waiting:
            run.withdrawn = True
            run.kill(block=False)
        return bool(waiting)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """End a task that was revoked with `terminate`."""
        for run in [run for run in self._pool if id(run) == pid]:
            run.kill(block=False)
