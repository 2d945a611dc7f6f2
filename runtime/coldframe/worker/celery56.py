"""Adds what Celery 5.7 and kombu 5.7 have, their 5.6 lacks, and the other modules rely on.

The other modules extend the classes at the end of this file. With 5.7 these are Celery's and kombu's own. With Celery 5.6
and kombu 5.7, only those of Celery are replaced. Celery 5.4 and 5.5 and kombu 5.4 and 5.5 need these classes too, and those of
`celery55.py` and `sending/kombu55.py`.
"""

from __future__ import annotations

import heapq
import logging
import time
from contextlib import suppress
from queue import Empty
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.concurrency import asynpool
from celery.worker import consumer, state
from celery.worker.request import Request
from kombu.transport import redis
from redis import ConnectionError as Broken

from coldframe.seams import extends
from coldframe.sending import kombu55
from coldframe.worker import celery55

LOOK = 5.0  # seconds between two checks of the connection, and of what must be redelivered
OVERDUE = 6.0  # seconds until the reply to a BRPOP of 1 s is overdue; kombu 5.7: brpop_timeout + health_check_interval
logger = logging.getLogger(__name__)


@extends()
class QoS56(redis.QoS):
    """Looks for messages to redeliver at each call, and not at each tenth one."""

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 1) -> None:
        """Requeue messages that have been unacknowledged for longer than the visibility timeout."""
        super().restore_visible(start, num, 1)


@extends("_brpop_sent_at")
class Channel56(kombu55.Channel):
    """Notes when it has sent a BRPOP."""

    _brpop_sent_at: float | None = None

    def _brpop_start(self, *arguments: Any, **options: Any) -> None:
        self._brpop_sent_at = time.monotonic()
        super()._brpop_start(*arguments, **options)


@extends("check", "look")
class MultiChannelPoller56(redis.MultiChannelPoller):
    """Closes a connection on which the reply to a BRPOP is overdue, such as a half-open one."""

    def look(self) -> None:
        """Check the connections, and requeue what other workers have lost."""
        self.check()
        self.maybe_restore_messages()

    def check(self) -> None:
        """Raise a connection error for an overdue reply. The event loop treats it as a broken connection."""
        for channel in tuple(self._channels):
            if channel._in_poll and time.monotonic() - channel._brpop_sent_at > OVERDUE:
                raise Broken("A BRPOP got no answer.")

    def on_readable(self, fileno: int) -> Any:
        """Read from a connection, unless it was closed."""
        return super().on_readable(fileno) if fileno in self._fd_to_chan else None

    def get(self, *arguments: Any, **options: Any) -> Any:
        """Read from the connections without an event loop, as with gevent."""
        try:
            return super().get(*arguments, **options)
        except Empty:  # nothing was there to read
            self.check()
            raise

    def maybe_restore_messages(self) -> None:
        """Requeue what other workers have lost. Ignores a broken connection, which the next read reports."""
        errors = next((channel.connection_errors for channel in self._channels), ())
        with suppress(*errors):
            super().maybe_restore_messages()


@extends()
class Transport56(redis.Transport):
    """Checks its connections periodically. Its `cycle` must be a MultiChannelPoller56."""

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Add the channels to the event loop."""
        super().register_with_event_loop(connection, loop)
        loop.call_repeatedly(LOOK, self.cycle.look)


@extends()
class AsynPool56(celery55.AsynPool):
    """Keeps the time limits of running tasks when a lost connection clears all timers."""

    def register_with_event_loop(self, hub: Any) -> None:
        """Add the child processes to the event loop."""
        limits = (self._on_soft_timeout, self._on_hard_timeout)

        def clear() -> None:
            queue = hub.timer._queue
            queue[:] = [item for item in queue if item[2].fun in limits]
            heapq.heapify(queue)

        hub.timer.clear = clear
        super().register_with_event_loop(hub)


@extends()
class Consumer56(consumer.Consumer):
    """Drops the requests that were requeued with a lost connection."""

    def on_close(self) -> None:
        """Drop them; otherwise a warm shutdown would requeue them again."""
        reserved = tuple(state.reserved_requests)
        super().on_close()
        for request in reserved:
            if request not in state.active_requests:
                state.requests.pop(request.id, None)
        state.reserved_requests.update(tuple(state.active_requests))


class Retrying:
    """A request that retries a task whose process was killed, up to its max_retries (`task_retry_on_worker_lost`)."""

    __slots__ = ()

    def on_failure(self: Any, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        """Handle a failure of the task, or the loss of its process."""
        on_failure = super().on_failure  # type: ignore[misc]
        error, task = exc_info.exception, self.task
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        wanted = task.acks_late and self._app.conf.get("task_retry_on_worker_lost")
        if not isinstance(error, WorkerLostError) or not wanted or state.should_terminate:
            return on_failure(exc_info, *arguments, **options)
        done, most = self._context.retries or 0, task.max_retries
        if most is None or done < most:
            try:
                again = {"countdown": task.default_retry_delay, "retries": done + 1}
                task.signature_from_request(self._context, **again).apply_async()
            except Exception:
                logger.exception("%s is not retried, but goes back to its queue.", self)
                return on_failure(exc_info, *arguments, **options)
            state.task_ready(self)
            if self.store_errors:
                task.backend.mark_as_retry(self.id, error, exc_info.traceback, request=self._context)
            self.acknowledge()
            self.send_event("task-retried", exception=repr(error), traceback=str(exc_info.traceback))
            return logger.info("Task %s retry: %s", self, error)
        rejects, task.reject_on_worker_lost = task.reject_on_worker_lost, False  # no retries are left
        try:
            return on_failure(exc_info, *arguments, **options)
        finally:
            task.reject_on_worker_lost = rejects


_kombu57 = hasattr(redis.Channel, "_brpop_sent_at")
_celery57 = hasattr(Request, "_eta_timer_entry")
QoS: Any = redis.QoS if _kombu57 else QoS56
Channel: Any = redis.Channel if _kombu57 else Channel56
MultiChannelPoller: Any = redis.MultiChannelPoller if _kombu57 else MultiChannelPoller56
Transport: Any = redis.Transport if _kombu57 else Transport56
AsynPool: Any = asynpool.AsynPool if _celery57 else AsynPool56
Consumer: Any = consumer.Consumer if _celery57 else Consumer56
# Mixins for the request class of a task.
REQUESTS: tuple[type, ...] = () if hasattr(Request, "_retry_worker_lost") else (Retrying,)
