"""Rejects a countdown or an ETA that is longer than the queue allows: the task would be redelivered meanwhile and run twice.

A retry is sent nevertheless, with a warning. Without it the task would be lost.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, tzinfo
from typing import Any

logger = logging.getLogger(__name__)


def check(name: str, headers: dict[str, Any], queue: str, longest: float, zone: tzinfo = UTC) -> None:
    """Compare the ETA in a message's headers with the longest wait (seconds) of its queue.

    :param zone: of an ETA without a time zone: the application's (`timezone`).

    Raises ValueError when the wait is longer and the message is not a retry.
    """
    eta = datetime.fromisoformat(headers["eta"])
    wait = ((eta if eta.tzinfo else eta.replace(tzinfo=zone)) - datetime.now(UTC)).total_seconds()
    if wait <= longest:
        return
    wrong = (
        f"{name} is to wait {wait:.0f} s, and a task of the queue {queue} may wait {longest} s: it would be delivered twice. "
        f"Set longest_countdown of {queue} in celery_queues to that or more, or keep a row and send the task when it is due."
    )
    if not headers.get("retries"):
        raise ValueError(wrong)
    logger.warning("A retry is sent all the same: %s", wrong)
