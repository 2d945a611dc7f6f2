"""Adds what the prefork pool of Celery 5.6 has, that of 5.4 and 5.5 lacks, and the other modules rely on.

Celery56 extends the class at the end of this file. From 5.6 on it is Celery's own.
"""

from __future__ import annotations

from typing import Any

import celery
from celery.concurrency import asynpool

from coldframe.seams import extends


@extends()
class AsynPool55(asynpool.AsynPool):
    """Keeps the running tasks when the connection to the broker is lost."""

    def flush(self) -> None:
        """Drop the tasks that no process has accepted.

        Celery 5.5 drops those that run, too: they would have no time limit, and would not be acknowledged. It also waits
        indefinitely for a process that has ended while a task was written to it.
        """
        writers = {asynpool._get_job_writer(job) for job in self._cache.values() if job._write_to and alive(job)}
        self._active_writers &= writers
        running = {number: job for number, job in self._cache.items() if job._accepted}
        super().flush()
        self._cache.clear()
        self._cache.update({number: job for number, job in running.items() if not job.ready()})


def alive(job: Any) -> bool:
    """Whether the process that a task is written to has not ended."""
    return bool(job._write_to._is_alive())


class Writers:
    """An event loop whose `remove` leaves the reader of a file descriptor: a new pipe may have the number by now."""

    def __init__(self, hub: Any) -> None:
        """Wrap an event loop. All attributes are those of the loop."""
        vars(self)["hub"] = hub

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the loop."""
        return getattr(self.hub, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the loop."""
        setattr(self.hub, name, value)

    def remove(self, descriptor: Any) -> None:
        """Remove the writer of a file descriptor."""
        self.hub.remove_writer(descriptor)


@extends()
class AsynPool54(AsynPool55):
    """Keeps reading from new processes when old ones have ended (celery#4185)."""

    def _create_write_handlers(self, hub: Any, *arguments: Any, **options: Any) -> None:
        """Prepare to write to the processes."""
        super()._create_write_handlers(Writers(hub), *arguments, **options)
        self.hub_remove = hub.remove


AsynPool: Any = (
    asynpool.AsynPool if celery.VERSION >= (5, 6) else AsynPool55 if celery.VERSION >= (5, 5) else AsynPool54
)
