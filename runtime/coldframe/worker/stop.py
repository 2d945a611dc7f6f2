"""Requeues the tasks that have not started before Celery's warm shutdown.

Celery 5.7 keeps tasks that have not started until the last running task has ended, perhaps for an hour: the task that the
last BRPOP returns (it stays open for up to a second), those that wait for a free child process, and those with a
countdown. A task that was written to a child process which has not accepted it yet runs there, and in another worker too.

So the worker first requeues what has not started, then waits until its child processes have accepted their tasks, and
only then shuts down. It also waits for the rest of a long result that has been read in part. Celery 5.4 and 5.5 would take that
rest for the beginning of another one when they shut down, and wait for it indefinitely.

Tasks that run in this process, in threads or green threads, are waited for while the event loop turns: it acknowledges them.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.worker import state

from coldframe.worker import pool

LIMIT = (
    5.0  # seconds to wait for child processes to accept their tasks and to write their results; it takes milliseconds
)
logger = logging.getLogger(__name__)


class Rest:
    """Replaces celery.worker.state.maybe_shutdown, which the worker's event loop calls at every turn."""

    def __init__(self, worker: Any) -> None:
        """Remember the worker."""
        self.worker, self.until, self.shut_down = worker, 0.0, state.maybe_shutdown
        self.idle = 0  # turns of the loop since the last task has ended, while the worker stops
        self.turned = time.monotonic()

    def __call__(self) -> None:
        """Note the time of the loop's last turn. Shut down if asked to: a cold shutdown at once, a warm one when at rest.

        Raises WorkerShutdown or WorkerTerminate, as the function that it replaces.
        """
        self.turned = time.monotonic()
        stop, terminate = (how is not None and how is not False for how in (state.should_stop, state.should_terminate))
        try:
            if stop and not terminate and not self.at_rest():
                return
        except Exception:
            logger.exception("What this worker has not begun stays with it until it ends.")
        self.shut_down()

    def at_rest(self) -> bool:
        """Whether every task of the pool runs, and no result is being read. The first call requeues all other tasks."""
        if not self.until:
            self.until = time.monotonic() + LIMIT
            pool.stop_consuming(self.worker.consumer)
            waiting = pool.take_back(self.worker)
            for request in waiting:
                request.reject(requeue=True)
            if waiting:
                return False  # the event loop requeues them at its next turn; Celery 5.6 would when the last task has ended
        if pool.in_this_process(self.worker) and self.worker.consumer.connection:
            self.idle = 0 if self.worker.pool.tasks() else self.idle + 1
            return self.idle > 1  # the last task was acknowledged at the turn between
        quiet = all(job._accepted for job in pool.jobs(self.worker)) and not pool.reading(self.worker)
        return quiet or time.monotonic() > self.until
