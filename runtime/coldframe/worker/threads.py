"""Extends the pool `threads`, which runs tasks side by side in one process.

- A task that waits for a thread is given back when the worker stops or loses its connection. Celery 5.7 drops it and leaves
  it unacknowledged.
- A task that ends by an exception that is no `Exception`, such as SystemExit, is treated as one whose process was lost.
  Celery would neither record nor acknowledge it.

No time limit is enforced: Python cannot end a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency import thread
from celery.exceptions import WorkerShutdown, WorkerTerminate

from coldframe.seams import extends


def failing(target: Callable[..., Any], failed: Callable[[ExceptionInfo], Any]) -> Callable[..., Any]:
    """Return a function that executes a task. It returns None, and calls `failed`, if that ends by no `Exception`."""

    def execute(*arguments: Any) -> Any:
        try:
            return target(*arguments)
        except (Exception, WorkerShutdown, WorkerTerminate):
            raise
        except BaseException as error:
            try:
                raise WorkerLostError(repr(error)) from error
            except WorkerLostError:
                failed(ExceptionInfo())
            return None

    return execute


@extends("tasks", "withdraw")
class TaskPool(thread.TaskPool):
    """Celery's pool of threads."""

    def on_start(self) -> None:
        """Start without tasks."""
        # To the ids of the tasks. A task that is retried may come again before its first run has ended.
        self.given: dict[Future[Any], str] = {}
        super().on_start()

    def on_apply(
        self,
        target: Any,
        args: Any = (),
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        error_callback: Any = None,
        correlation_id: str = "",
        **_: Any,
    ) -> Any:
        """Execute a task as soon as a thread is free."""

        def done(result: Any) -> None:
            if result is not None:
                callback(result)

        applied = super().on_apply(failing(target, error_callback), args, kwargs, done, accept_callback)
        self.given[applied.f] = correlation_id
        applied.f.add_done_callback(lambda future: self.given.pop(future, None))
        return applied

    def tasks(self) -> set[str]:
        """Return the ids of the tasks that run or wait. One that has ended runs until it is to be acknowledged."""
        return set(tuple(self.given.values()))

    def withdraw(self, task: str) -> bool:
        """Take back a task that has not begun; return whether it has not.

        :param task: its id.
        """
        waiting = [future for future, id_ in tuple(self.given.items()) if id_ == task and future.cancel()]
        return bool(waiting)
