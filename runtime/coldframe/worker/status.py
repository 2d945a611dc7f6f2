"""Reports a worker's state to systemd: status line, readiness and watchdog (sd_notify(3))."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from coldframe.worker import pool, unknown
from coldframe.worker.watch import Watch

INTERVAL = 1.0  # seconds between two messages
TASKS = 10  # tasks that the status names, at most
logger = logging.getLogger(__name__)


class Status:
    """The state of a worker."""

    phase = "consuming"
    ready = False
    unwatched = ""  # why the watch cannot look at the worker
    trouble = ""  # why the broker cannot be used now

    def __init__(self, notify: Callable[[str], None]) -> None:
        """Start as a worker that is not ready.

        :param notify: sends a message to systemd.
        """
        self.notify = notify

    def line(self) -> str:
        """Return the status as one line."""
        phase = f"waiting for the broker: {self.trouble}" if self.trouble and self.phase == "consuming" else self.phase
        tasks = sorted(f"{request.name}[{request.id}]" for request in pool.running())
        more = f" and {len(tasks) - TASKS} more" if len(tasks) > TASKS else ""
        watched = f", not watched: {self.unwatched}" if self.unwatched else ""
        running = ", running " + ", ".join(tasks[:TASKS]) + more if tasks else ""
        return phase + watched + running + unknown.status()

    def wait(self, trouble: str) -> None:
        """Report why the broker cannot be used; an empty text when it can."""
        self.trouble = " ".join(trouble.split())[:200]
        with suppress(OSError):
            self.notify(f"STATUS={self.line()}")

    def drain(self) -> None:
        """Report that the worker takes no more tasks, and finishes those that it has."""
        self.phase = "draining"
        self.notify(f"STOPPING=1\nSTATUS={self.line()}")

    def report(self, watch: Watch) -> None:
        """Keep systemd's status line and its watchdog current, for as long as the process lives."""
        while True:
            try:
                self.notify(f"{self.watchdog(watch)}\nSTATUS={self.line()}")
            except Exception:
                logger.exception("The worker's state was not reported.")
            time.sleep(INTERVAL)

    def watchdog(self, watch: Watch) -> str:
        """Return the message that feeds systemd's watchdog, or triggers it. A worker that drains has a time limit instead.

        When the watch itself fails, nothing is known of the worker, and the watchdog is fed. But a worker is not ready
        before it can be watched: a release whose Celery the watch does not work with does not start.
        """
        if self.phase == "draining":
            return "WATCHDOG=1"
        try:
            fault = watch.fault()
        except Exception as error:
            if not self.unwatched:
                logger.exception("The watch over this worker fails: it would not be restarted if it hung.")
            self.unwatched = f"{type(error).__name__}: {error}"
            return "WATCHDOG=1"
        self.unwatched = ""
        if fault:
            logger.critical("This worker is to be restarted: %s, and the broker answers.", fault)
            return "WATCHDOG=trigger"
        ready, self.ready = self.ready, True
        return "WATCHDOG=1" if ready else "READY=1\nWATCHDOG=1"
