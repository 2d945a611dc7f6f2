"""Extends Celery's consumer: it survives a lost connection, rejects messages that are no tasks, and parks unknown tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.signals import worker_shutdown
from kombu.exceptions import ContentDisallowed, DecodeError
from redis.exceptions import ResponseError

from coldframe.logs import ids
from coldframe.seams import extends
from coldframe.worker import celery56, message, pool, request, unknown
from coldframe.worker.held import NOTHING, RETRY, held

logger = logging.getLogger(__name__)


@extends("report", "give_up")
class Consumer(celery56.Consumer):
    """Celery's consumer, extended."""

    report: Callable[[str], None] = staticmethod(lambda trouble: None)

    def update_strategies(self) -> None:
        """Extend the request class of each task."""
        for task in self.app.tasks.values():
            task.Request = request.extended(task.Request)
        super().update_strategies()

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Return the handler of messages. Called for each new connection, which takes over the running tasks first."""
        held.hand_over(self)
        self.report("")
        handle = super().create_task_handler(*arguments, **options)

        def on_task_received(received: Any) -> None:
            with ids.of_message(received.headers):
                try:
                    wrong = message.flaw(received)
                    unfit = "" if wrong else unknown.unfit(self, received)
                except (ContentDisallowed, DecodeError):
                    wrong = unfit = ""  # Celery rejects these itself
                if wrong:
                    self.on_invalid_task(None, received, InvalidTaskError(wrong))
                elif unfit:
                    unknown.park(received, unfit)
                else:
                    handle(received)

        return on_task_received

    def call_soon(self, todo: Any, *arguments: Any, **options: Any) -> Any:
        """Call a function at the next turn of the event loop.

        Without an event loop, as with gevent, Celery 5.6 would acknowledge a task up to 2 s after its end.
        """
        if not self.hub and getattr(todo, "__name__", "") in ("ack_log_error", "reject_log_error"):
            return todo(*arguments, **options)
        return super().call_soon(todo, *arguments, **options)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Park a task that is not registered in this release."""
        unknown.park(message)

    def give_up(self, message: Any, exc: Exception) -> None:
        """Handle an unknown task as Celery does: reject it and mark it as failed. So fail its chain and chord; errbacks are called."""
        super().on_unknown_task(None, message, exc)
        args, kwargs, further = message.payload
        request = Context(message.headers, args=args, kwargs=kwargs, **further)
        failure = NotRegistered(message.headers["task"])
        self.app.backend.mark_as_failure(message.headers["id"], failure, request=request)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Report it too: Celery only logs it, and tries again."""
        self.report(str(exc) or type(exc).__name__)
        super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Take over what the broken connection holds, then close it."""
        self.report(str(exc) or type(exc).__name__)
        if isinstance(exc, ResponseError):
            held.owed[NOTHING] = None, False
        close = super().on_connection_error_after_connected
        for step in (lambda: held.take_over(self), lambda: close(exc)):
            try:
                step()
            except Exception:
                logger.exception("The broken connection was not closed as it should.")
        self.connection = None

    def ensure_connected(self, conn: Any) -> Any:
        """Retry until the broker answers and accepts writes. Meanwhile, serve the running tasks."""
        ensure_connection = conn.ensure_connection

        def keep_trying(errback: Any, _: int, callback: Any) -> Any:
            def meanwhile() -> None:
                callback()
                try:  # running tasks end, or reach their time limits
                    pool.hear(self.controller)
                    if self.hub:  # gevent has none
                        self.hub.fire_timers()
                except Exception:
                    logger.exception("The running tasks are not looked after.")

            def failed(error: Exception, interval: float) -> None:
                self.report(str(error) or type(error).__name__)
                errback(error, interval)

            ensure_connection(failed, callback=meanwhile, interval_start=RETRY, interval_step=0, interval_max=RETRY)
            while refusal := held.settle_apart(self.app):
                failed(refusal, RETRY)
                for _ in range(RETRY):
                    meanwhile()
                    time.sleep(1)
            return conn

        conn.ensure_connection = keep_trying
        return super().ensure_connected(conn)


@worker_shutdown.connect
def on_worker_shutdown(sender: Any, **_: Any) -> None:
    """Send what is still owed, in case the broker is back."""
    held.settle_apart(sender.app)


def install(app: Any, report: Callable[[str], None]) -> None:
    """Have an application's worker use this consumer.

    :param report: called with the reason why the broker cannot be used, and with an empty text when it can.
    """
    Consumer.report = staticmethod(report)
    app.conf.worker_consumer = "coldframe.worker.consumer:Consumer"
