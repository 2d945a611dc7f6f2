"""Extends how Celery sends tasks: the deployment's routes, the id of the request, and countdowns and ETAs of any length.

The deployment's routes take precedence over the application's for the tasks that they name. A priority has no effect, which is
logged: what must not wait for other tasks has a queue of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from celery import Celery
from celery.app import amqp, routes

from coldframe import seams, settings_check, tracing
from coldframe.logs import ids
from coldframe.seams import extends
from coldframe.sending import countdown, kombu55

logger = logging.getLogger(__name__)


@cache
def warn_of_priority(name: str) -> None:
    """Log once for each task of a process that its messages have a priority, which is ignored."""
    logger.warning(
        "%s is sent with a priority, which has no effect: give it a queue of its own by celery_task_routes.", name
    )


@extends()
class AMQP(amqp.AMQP):
    """The class of an application's `app.amqp`."""

    Connection = kombu55.Connection
    _rtable: Any

    def _create_task_sender(self) -> Callable[..., Any]:
        """Return the function that sends tasks, with the id of the request. It stores those with a long delay."""
        send = super()._create_task_sender()

        @wraps(send)
        def sent(producer: Any, name: str, message: Any, *arguments: Any, **options: Any) -> Any:
            if options.get("priority"):
                warn_of_priority(name)
            request_id = message.headers.setdefault(ids.HEADER, ids.to_send())
            queue = options.get("queue") or self.app.conf.task_default_queue
            queue = getattr(queue, "name", queue)
            longest = (self.app.conf.get("task_longest_countdown") or {}).get(queue)
            if message.headers.get("eta") and longest is not None:
                producer = countdown.producer(producer, name, message.headers, queue, longest, self.app.timezone)
            with tracing.publishing(request_id, self.app, name, message.headers.get("id", "")):
                return send(producer, name, message, *arguments, **options)

        return sent

    def flush_routes(self) -> None:
        """Read the routes."""
        super().flush_routes()
        first = settings_check.given().get(settings_check.OWN, {}).get("routes")
        self._rtable = (*routes.prepare(first or None), *self._rtable)


def install() -> None:
    """Make these the classes of each application's `app.amqp` and `app.control`. Call it before the application is imported."""
    kombu55.install()
    seams.put(Celery, "control_cls", "coldframe.sending.control:Control")
    seams.put(Celery, "amqp_cls", "coldframe.sending.amqp:AMQP")
