"""Extends remote control, and the transport of web processes and manage.py.

Tasks that are stored until they are due are revoked in the database (coldframe.delayed). Where remote control is closed, the
error names the variable that opens it. Redis would name a key or a channel.
"""

from __future__ import annotations

from typing import Any

from celery.app import control
from celery.utils.functional import maybe_list
from kombu.transport import redis

from coldframe import seams
from coldframe.delayed import store
from coldframe.seams import extends
from coldframe.sending import kombu55


@extends()
class Control(control.Control):
    """The class of an application's `app.control`."""

    def broadcast(self, command: str, *arguments: Any, **options: Any) -> Any:
        """Send a command. All of remote control uses this, such as revoke, inspect and ping.

        Raises PermissionError where remote control is closed.
        """
        if self.app.conf.get("web_control") is False:
            raise PermissionError(
                f"Celery's remote control ({command}) is closed to web processes and manage.py here: "
                "redis_web_control is false in the inventory. Set it to true and deploy."
            )
        return super().broadcast(command, *arguments, **options)

    def revoke(self, task_id: Any, *arguments: Any, **options: Any) -> Any:
        """Revoke tasks: those that are stored, then those that workers have.

        :param task_id: one or several.

        Raises PermissionError where remote control is closed, unless all of them are stored.
        """
        ids = {task_id} if isinstance(task_id, str) else set(maybe_list(task_id) or ())
        if store.revoke(ids) >= ids and self.app.conf.get("web_control") is False:
            return None
        return super().revoke(task_id, *arguments, **options)


@extends()
class QoS(redis.QoS):
    """The unacknowledged messages of a channel."""

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: workers requeue what other workers have lost.

        kombu calls this while it waits for replies, too. The Redis user of these processes may not read those keys.
        """


@extends()
class Channel(kombu55.Channel):
    """A channel of a process that consumes only replies."""

    QoS = QoS


@extends()
class Transport(redis.Transport):
    """A connection to the broker of a process that is not a worker."""

    Channel = Channel


def install() -> None:
    """Make this the transport of each application."""
    seams.use_transport("coldframe.sending.control:Transport")
