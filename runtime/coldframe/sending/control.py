"""Extends remote control and transport for web processes and manage.py.

Where remote control is closed, the error names the variable that opens it. Redis would name a key or a channel.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app import control
from kombu.transport import redis

from coldframe import seams
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
    """Make these the classes of each application. Call it before the application is imported."""
    seams.put(Celery, "control_cls", "coldframe.sending.control:Control")
    seams.use_transport("coldframe.sending.control:Transport")
