"""Remote control from web processes and manage.py, where no worker is.

Where it is closed it is refused by the variable that opens it: Redis would name a key or a channel.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from celery.app.control import Control
from kombu.transport.redis import QoS


def install() -> None:
    """Put the check before the function that all of remote control goes through: revoke, inspect, ping and the rest."""
    broadcast = Control.broadcast

    @wraps(broadcast)
    def checked(control: Control, command: str, *arguments: Any, **options: Any) -> Any:
        if control.app.conf.get("web_control") is False:
            raise PermissionError(
                f"Celery's remote control ({command}) is closed to web processes and manage.py here: "
                "redis_web_control is false in the inventory. Set it to true and deploy."
            )
        return broadcast(control, command, *arguments, **options)

    Control.broadcast = checked
    # Who waits for answers looks, when none comes, for messages that workers have lost. That is the workers' to do,
    # and these processes may not read them.
    QoS.restore_visible = restore_nothing


def restore_nothing(qos: QoS, *arguments: Any, **options: Any) -> None:
    """Leave what workers have lost to workers."""
