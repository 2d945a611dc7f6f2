"""Decides what becomes of a task with a countdown or an ETA.

A task that waits in a worker for longer than its queue allows would be redelivered meanwhile, and run twice. So it is stored
until it is due (coldframe.delayed). Where that is not possible it is rejected, except for a retry: that is sent, with a
warning, because it would be lost.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, tzinfo
from typing import Any

from coldframe import delayed
from coldframe.delayed import store

logger = logging.getLogger(__name__)


def producer(real: Any, name: str, headers: dict[str, Any], queue: str, longest: float, zone: tzinfo = UTC) -> Any:
    """Return the producer for a message: the real one, or one that stores the message.

    :param headers: of the message.
    :param longest: for how many seconds a task of its queue may wait in a worker.
    :param zone: of an ETA without a time zone: the application's (`timezone`).

    Raises ValueError when the wait is longer, the message is not a retry, and this process cannot store it.
    """
    eta = datetime.fromisoformat(headers["eta"])
    due = (eta if eta.tzinfo else eta.replace(tzinfo=zone)).timestamp()
    wait = due - time.time()
    if wait <= longest:
        return real
    if delayed.installed():
        return store.Producer(real, queue, due - min(store.AHEAD, longest))
    wrong = (
        f"{name} is to wait {wait:.0f} s, and a task of the queue {queue} may wait {longest} s: it would be delivered twice. "
        f"Set longest_countdown of {queue} in celery_queues to that or more; or take apps out of app_own_settings, and it is "
        "stored in the database until it is due."
    )
    if not headers.get("retries"):
        raise ValueError(wrong)
    logger.warning("A retry is sent all the same: %s", wrong)
    return real
