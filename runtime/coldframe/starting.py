"""Extends systemd's start timeout for a process that makes progress.

TimeoutStartSec counts wall-clock seconds. After a boot all processes of a host load the application at once and share the
processors. They may need longer than the timeout of each, and would be restarted forever. Here the limit counts the CPU
time of the process, or the time in which it used none.
"""

from __future__ import annotations

import _thread
import os
import time
from collections.abc import Callable
from socket import AF_UNIX, SOCK_DGRAM, socket

INTERVAL = 5.0  # seconds between two checks, at most
IDLE = 0.01  # of a processor; a process that only waits and retries uses less


def notify(message: str) -> None:
    """Send a message to systemd (sd_notify(3)). Does nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket(AF_UNIX, SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), address)


class Start:
    """The start of this process, from `begin` to `end`."""

    def __init__(self, seconds: float, progress: Callable[[], object] | None = None) -> None:
        """Remember the limit.

        :param seconds: CPU time, or idle time, that the start may take; the unit's TimeoutStartSec.
        :param progress: called at each check at which the process made progress.
        """
        self.seconds, self.progress = seconds, progress or (lambda: None)
        # Held before `begin`; while the start goes on; and while the thread runs. gevent replaces what `threading` has.
        self.waiting, self.going_on, self.checking = (_thread.allocate_lock() for _ in range(3))
        self.waiting.acquire()

    def begin(self) -> None:
        """Start to check, in a thread."""
        self.going_on.acquire()
        self.checking.acquire()
        _thread.start_new_thread(self.run, ())
        self.waiting.release()

    def end(self) -> None:
        """Request no more time: the process is ready, or waits for something. May be called again."""
        if self.waiting.acquire(blocking=False):
            self.going_on.release()
            self.checking.acquire()

    def run(self) -> None:
        """Check until the end, in a thread."""
        try:
            self.watch()
        finally:
            self.checking.release()

    def watch(self) -> None:
        """Request more time at each check at which CPU time was used, within the limit."""
        looked, used = time.monotonic(), time.process_time()
        limit = used + self.seconds
        while not self.going_on.acquire(timeout=min(INTERVAL, self.seconds / 4)):
            now, so_far = time.monotonic(), time.process_time()
            if so_far - used > IDLE * (now - looked) and so_far < limit:
                self.progress()
                notify(f"EXTEND_TIMEOUT_USEC={int(self.seconds * 1_000_000)}")
            looked, used = now, so_far


def of_unit(progress: Callable[[], object] | None = None) -> Start:
    """Return the start of this process, with the limit of its unit (`START_TIMEOUT`)."""
    return Start(float(os.environ.get("START_TIMEOUT", "60")), progress)
