"""Closes database connections in the worker's main process, says for which task it speaks, and notes which tasks have ended.

That process stores the result of a task that was ended at its time limit, or whose process was killed. Celery 5.7 leaves
the connection open then. Once it is cut, no further result can be stored, and each new process inherits it.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from kombu.utils.imports import symbol_by_name

from coldframe.logs import ids
from coldframe.worker import celery56
from coldframe.worker.held import held
from coldframe.worker.runs import runs


class Closing:
    """A request that closes the database connections after it has stored a result. Its records have the task's ids."""

    __slots__ = ()

    def on_timeout(self: Any, soft: bool, timeout: float) -> Any:
        """Handle a time limit of the task."""
        try:
            if not soft:
                runs.failed(self)
            with ids.of_message(self.request_dict):
                return super().on_timeout(soft, timeout)  # type: ignore[misc]
        finally:
            close_connections()

    def on_failure(self: Any, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        """Handle a failure of the task, or the loss of its process."""
        try:
            runs.ended(self, exc_info)
            with ids.of_message(self.request_dict):
                return super().on_failure(exc_info, *arguments, **options)  # type: ignore[misc]
        finally:
            close_connections()

    def acknowledge(self: Any) -> None:
        """Acknowledge the message: at once, or at the next turn of the event loop, where there is one."""
        if not self.acknowledged:
            held.ended.add(self._message.delivery_tag)
        with held.one:
            super().acknowledge()  # type: ignore[misc]


def close_connections() -> None:
    """Close the database connections of this process, if it uses Django."""
    if django := sys.modules.get("django.db"):
        django.connections.close_all()


@cache
def extended(kind: Any) -> Any:
    """Return a subclass of a task's request class, with our methods.

    :param kind: the class, or its name as in `Task.Request`.

    Raises AttributeError when the class lacks a method that ours override.
    """
    base = symbol_by_name(kind)
    if issubclass(base, Closing):
        return base
    for name in ("on_timeout", "on_failure", "acknowledge"):
        getattr(base, name)
    return type(base.__name__, (Closing, *celery56.REQUESTS, base), {"__slots__": ()})
