"""Keeps no connection to the database open in a worker's main process.

That process stores the result of a task which was ended at its time limit, or whose process was killed. Celery 5.7
leaves the connection open then: once it has been cut no further result can be stored, and each new process inherits it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.worker.request import Request


def install() -> None:
    """Put this around the functions of Celery that store a result in the main process."""

    def closing(store: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(store)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            try:
                return store(*arguments, **options)
            finally:
                if django := sys.modules.get("django.db"):
                    django.connections.close_all()

        return wrapped

    Request.on_timeout, Request.on_failure = closing(Request.on_timeout), closing(Request.on_failure)
