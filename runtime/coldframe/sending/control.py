"""Remote control from web processes and manage.py, where no worker is.

Where it is closed it is refused by the variable that opens it: Redis would name a key or a channel.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app import control
from kombu.transport import redis

from coldframe import seams
from coldframe.seams import extends


@extends()
class Control(control.Control):
    """What an application's `app.control` is."""

    def broadcast(self, command: str, *arguments: Any, **options: Any) -> Any:
        """Send a command: all of remote control goes through here, such as revoke, inspect and ping.

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
    """What a channel has taken and not acknowledged."""

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Leave to workers what workers have lost.

        Who waits for answers looks for it when none comes. These processes may not read it.
        """


@extends()
class Channel(redis.Channel):
    """A channel of a process that consumes answers alone."""

    QoS = QoS


@extends()
class Transport(redis.Transport):
    """A connection to the broker of a process that is no worker."""

    Channel = Channel


def install() -> None:
    """Have each application's `app.control` and its connections be these; call it before the application is imported."""
    seams.put(Celery, "control_cls", "coldframe.sending.control:Control")
    seams.use_transport("coldframe.sending.control:Transport")
