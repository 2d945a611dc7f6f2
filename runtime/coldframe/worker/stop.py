"""What a worker does before Celery's own warm stop: it comes to rest.

Celery 5.7 keeps what a worker has received and not begun until the last running task has ended, an
hour perhaps: the task that the last BRPOP brings (it stays open for up to a second), those that wait
for a free child, and those with a countdown. What was written to a child that has not said yet that
it begins is run there and by another worker too. So the worker first gives back what it has not
begun, and waits for what it has handed out to be running; then there is nothing left to go wrong.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.worker import state

from coldframe.worker import pool

LIMIT = 5.0  # seconds that a child may take to say that it has begun; it takes milliseconds
logger = logging.getLogger(__name__)


class Rest:
    """Stands in for celery.worker.state.maybe_shutdown, which the worker's event loop asks at every turn."""

    def __init__(self, worker: Any) -> None:
        """Remember the worker; before it is asked to stop, only the time of the loop's last turn is noted."""
        self.worker, self.until, self.shut_down = worker, 0.0, state.maybe_shutdown
        self.turned = time.monotonic()

    def __call__(self) -> None:
        """Shut down when asked to: at once when it must be at once, else when at rest.

        Raises WorkerShutdown or WorkerTerminate, as the function that it stands in for.
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
        """Whether whatever the children were given is running; when asked first, the rest is given back."""
        if not self.until:
            self.until = time.monotonic() + LIMIT
            pool.stop_consuming(self.worker.consumer)
            waiting = pool.take_back(self.worker)
            for request in waiting:
                request.reject(requeue=True)
            if waiting:
                return False  # the event loop requeues them when it turns; Celery 5.6 else when the last task has ended
        return time.monotonic() > self.until or all(job._accepted for job in pool.jobs(self.worker))
