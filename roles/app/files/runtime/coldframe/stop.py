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
from contextlib import suppress
from queue import Empty
from typing import Any

from celery.worker import state

LIMIT = 5.0  # seconds that a child may take to say that it has begun; it takes milliseconds
logger = logging.getLogger(__name__)


class Rest:
    """Stands in for celery.worker.state.maybe_shutdown, which the worker's event loop asks at every turn."""

    def __init__(self, worker: Any) -> None:
        """Remember the worker; nothing happens before it is asked to stop."""
        self.worker, self.until, self.shut_down = worker, 0.0, state.maybe_shutdown

    def __call__(self) -> None:
        """Shut down when asked to: at once when it must be at once, else when at rest.

        Raises WorkerShutdown or WorkerTerminate, as the function that it stands in for.
        """
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
            self.stop_consuming()
            for request in self.take_back():
                request.reject(requeue=True)
        return time.monotonic() > self.until or all(job._accepted for job in self.jobs())

    def stop_consuming(self) -> None:
        """Take no more message, and read the answer of the open BRPOP: what nobody consumes goes back to its queue."""
        consumer = self.worker.consumer.task_consumer
        consumer.cancel()
        if getattr(consumer.channel, "_in_poll", None):
            with suppress(Empty):
                consumer.channel._brpop_read()

    def jobs(self) -> list[Any]:
        """List what the pool's children were given, or will be."""
        return list(getattr(self.worker.pool._pool, "_cache", {}).values())

    def take_back(self) -> list[Any]:
        """Take what waits, for a child, a slot, its time or its rate, from where it waits."""
        consumer, pool = self.worker.consumer, self.worker.pool._pool
        if not hasattr(pool, "outbound_buffer"):
            return []  # a pool of threads: it cannot say what it has begun
        for job in list(pool.outbound_buffer):
            pool.outbound_buffer.remove(job)
            job.discard()
        if consumer.controller.semaphore:
            consumer.controller.semaphore.clear()
        for bucket in filter(None, consumer.task_buckets.values()):
            bucket.clear_pending()
        given = {job.correlation_id for job in self.jobs()}
        requests = [r for r in state.requests.values() if r not in state.active_requests and r.id not in given]
        for request in requests:
            if entry := getattr(request, "_eta_timer_entry", None):
                consumer.timer.cancel(entry)
        return requests
