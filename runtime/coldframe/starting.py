"""Keeps systemd from ending a process that starts slowly, for as long as it gets on.

TimeoutStartSec counts seconds of the clock. After a boot all processes of a host load the application at once, and
share the processors: together they may need longer than each of them is given, and would be ended and begin anew for
ever. Here the limit counts a process's own seconds: those of the processor that it used, or those in which it used none.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

INTERVAL = 5.0  # seconds between two looks, at most
IDLE = 0.01  # of a processor; who only waits, and tries again now and then, uses less


def notify(message: str) -> None:
    """Send a message to systemd (sd_notify(3)); without systemd there is nobody to tell."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), address)


class Start:
    """The start of this process, from `begin` to `end`."""

    def __init__(self, seconds: float, progress: Callable[[], object] | None = None) -> None:
        """Remember the limit.

        :param seconds: of the processor, or of idling, that the start may take; the unit's TimeoutStartSec.
        :param progress: called at each look at which the process got on.
        """
        self.seconds, self.progress = seconds, progress or (lambda: None)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, name="start", daemon=True)

    def begin(self) -> None:
        """Look from now on, from a thread of its own."""
        self.thread.start()

    def end(self) -> None:
        """Look no more; the thread is gone when this returns."""
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()

    def watch(self) -> None:
        """Ask for more time at each look at which the processor was used, within the limit."""
        looked, used = time.monotonic(), time.process_time()
        limit = used + self.seconds
        while not self.ended.wait(min(INTERVAL, self.seconds / 4)):
            now, so_far = time.monotonic(), time.process_time()
            if so_far - used > IDLE * (now - looked) and so_far < limit:
                self.progress()
                notify(f"EXTEND_TIMEOUT_USEC={int(self.seconds * 1_000_000)}")
            looked, used = now, so_far


def of_unit(progress: Callable[[], object] | None = None) -> Start:
    """Return the start of a process of this unit, with the unit's limit."""
    return Start(float(os.environ.get("START_TIMEOUT", "60")), progress)
