"""Refuses remote control where it is closed, by the variable that opens it: Redis would name a key or a channel."""

from __future__ import annotations

from functools import wraps
from typing import Any

from celery.app.control import Control


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
