"""Refuses to put a task off for longer than its queue allows: it would be delivered again while it waits, and run twice.

By a countdown or an ETA. A retry is sent all the same, with a warning, for without it the task would be lost.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, tzinfo
from typing import Any

logger = logging.getLogger(__name__)


def check(name: str, headers: dict[str, Any], queue: str, longest: float, zone: tzinfo = UTC) -> None:
    """Compare the ETA in a message's headers with the longest wait (seconds) of its queue.

    :param zone: of an ETA that names none: the application's (`timezone`).

    Raises ValueError when it is later, and the message is no retry.
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
