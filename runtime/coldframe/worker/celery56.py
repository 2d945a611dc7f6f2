"""What Celery 5.7 and kombu 5.7 do for a worker and their 5.6 does not, as far as the other modules rely on it.

Each part looks whether what it adds is there, so that nothing is changed under 5.7; kombu 5.7 under Celery 5.6 needs one half.
"""

from __future__ import annotations

import heapq
import logging
import time
from contextlib import suppress
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery import Task
from celery.concurrency.asynpool import AsynPool
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from kombu.transport.redis import Channel, MultiChannelPoller, QoS, Transport
from redis import ConnectionError as Broken

LOOK = 5.0  # seconds from one look at the broker's connection, and at what is to be restored, to the next
OVERDUE = (
    6.0  # seconds after which a BRPOP of 1 second has no answer: kombu 5.7 takes brpop_timeout + health_check_interval
)
logger = logging.getLogger(__name__)


def install() -> None:
    """Add what is missing."""
    if not hasattr(Channel, "_brpop_sent_at"):
        ask_again()
        restore_soon()
    if not hasattr(Request, "_eta_timer_entry"):
        keep_time_limits()
        forget_what_went_back()
    if not hasattr(Request, "_retry_worker_lost"):
        retry_what_was_killed()
    if "task_time_limit" not in dict(Task.from_config).values():
        # Else the limits of the application's settings would not count where the worker's command has some.
        Task.from_config += (("time_limit", "task_time_limit"), ("soft_time_limit", "task_soft_time_limit"))


def ask_again() -> None:
    """Note when a BRPOP was sent, and give up a connection on which its answer is overdue, as it is on a half-open one."""
    start, register, on_readable = (
        Channel._brpop_start,
        Transport.register_with_event_loop,
        MultiChannelPoller.on_readable,
    )

    def noted_start(channel: Any, *arguments: Any, **options: Any) -> None:
        channel._brpop_sent_at = time.monotonic()
        start(channel, *arguments, **options)

    def look(cycle: Any) -> None:
        for channel in tuple(cycle._channels):
            if channel._in_poll and time.monotonic() - channel._brpop_sent_at > OVERDUE:
                raise Broken("A BRPOP got no answer.")  # the event loop takes it for a broken connection
        cycle.maybe_restore_messages()

    def looking_register(transport: Any, connection: Any, loop: Any) -> None:
        register(transport, connection, loop)
        loop.call_repeatedly(LOOK, look, transport.cycle)

    def known_readable(poller: Any, fileno: int) -> Any:
        return (
            on_readable(poller, fileno) if fileno in poller._fd_to_chan else None
        )  # else of a connection that is gone

    Channel._brpop_sent_at, Channel._brpop_start = None, noted_start
    Transport.register_with_event_loop, MultiChannelPoller.on_readable = looking_register, known_readable


def restore_soon() -> None:
    """Look for what is to be delivered again each time that is asked for, and not each tenth time."""
    restore_visible, maybe_restore = QoS.restore_visible, MultiChannelPoller.maybe_restore_messages

    def restored(qos: Any, start: int = 0, num: int = 10, interval: int = 1) -> None:
        restore_visible(qos, start, num, 1)

    def tried(poller: Any) -> None:
        errors = next((channel.connection_errors for channel in poller._channels), ())
        with suppress(*errors):
            maybe_restore(poller)

    QoS.restore_visible, MultiChannelPoller.maybe_restore_messages = restored, tried


def keep_time_limits() -> None:
    """Keep the time limits of the running tasks when the connection to the broker is lost, and every timer is cleared."""
    register = AsynPool.register_with_event_loop

    def keeping_register(pool: Any, hub: Any) -> None:
        limits = (pool._on_soft_timeout, pool._on_hard_timeout)

        def clear() -> None:
            queue = hub.timer._queue
            queue[:] = [item for item in queue if item[2].fun in limits]
            heapq.heapify(queue)

        hub.timer.clear = clear
        register(pool, hub)

    AsynPool.register_with_event_loop = keeping_register


def forget_what_went_back() -> None:
    """Forget the tasks that went back to the broker with a lost connection; otherwise a drain would give them back again."""
    on_close = Consumer.on_close

    def forgetting_close(consumer: Any) -> None:
        reserved = tuple(state.reserved_requests)
        on_close(consumer)
        for request in reserved:
            if request not in state.active_requests:
                state.requests.pop(request.id, None)
        state.reserved_requests.update(tuple(state.active_requests))

    Consumer.on_close = forgetting_close


def retry_what_was_killed() -> None:
    """Retry a task whose process was killed as often as its max_retries says (`task_retry_on_worker_lost`)."""
    on_failure = Request.on_failure

    def retrying_on_failure(request: Any, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        error, task = exc_info.exception, request.task
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        wanted = task.acks_late and request._app.conf.get("task_retry_on_worker_lost")
        if not isinstance(error, WorkerLostError) or not wanted or state.should_terminate:
            return on_failure(request, exc_info, *arguments, **options)
        done, most = request._context.retries or 0, task.max_retries
        if most is None or done < most:
            try:
                again = {"countdown": task.default_retry_delay, "retries": done + 1}
                task.signature_from_request(request._context, **again).apply_async()
            except Exception:
                logger.exception("%s is not retried, but goes back to its queue.", request)
                return on_failure(request, exc_info, *arguments, **options)
            state.task_ready(request)
            if request.store_errors:
                task.backend.mark_as_retry(request.id, error, exc_info.traceback, request=request._context)
            request.acknowledge()
            request.send_event("task-retried", exception=repr(error), traceback=str(exc_info.traceback))
            return logger.info("Task %s retry: %s", request, error)
        rejects, task.reject_on_worker_lost = task.reject_on_worker_lost, False  # there were enough
        try:
            return on_failure(request, exc_info, *arguments, **options)
        finally:
            task.reject_on_worker_lost = rejects

    Request.on_failure = retrying_on_failure
