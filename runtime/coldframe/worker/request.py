"""A task's request in the worker's main process, which keeps no connection to the database open.

That process stores the result of a task that was ended at its time limit, or whose process was killed. Celery 5.7
leaves the connection open then: once it has been cut no further result can be stored, and each new process inherits it.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from kombu.utils.imports import symbol_by_name

from coldframe.worker import celery56


class Closing:
    """Closes the database's connections once it has stored a result."""

    __slots__ = ()

    def on_timeout(self, *arguments: Any, **options: Any) -> Any:
        """Note that the task has run into a time limit."""
        try:
            return super().on_timeout(*arguments, **options)  # type: ignore[misc]
        finally:
            close_connections()

    def on_failure(self, *arguments: Any, **options: Any) -> Any:
        """Note that the task has failed, or lost its process."""
        try:
            return super().on_failure(*arguments, **options)  # type: ignore[misc]
        finally:
            close_connections()


def close_connections() -> None:
    """Close this process's connections to the database, if it uses Django."""
    if django := sys.modules.get("django.db"):
        django.connections.close_all()


@cache
def extended(kind: Any) -> Any:
    """Return the class of requests that a task's `Request` names, with ours in front.

    :param kind: a class, or its name.

    Raises AttributeError when that class has none of the methods that ours extend.
    """
    base = symbol_by_name(kind)
    if issubclass(base, Closing):
        return base
    for name in ("on_timeout", "on_failure"):
        getattr(base, name)
    return type(base.__name__, (Closing, *celery56.REQUESTS, base), {"__slots__": ()})
