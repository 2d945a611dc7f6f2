"""Waits until a condition is true, longer on a machine whose processors are busy.

The kernel counts the time in which a process waited for a processor (PSI, `some` of /proc/pressure/cpu). Such a second counts
as a third of one, so a limit is up to three times as long. On an idle machine it is as long as the test says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUSY = 3


def stalled() -> float:
    """Return the seconds since the machine was booted in which a process waited for a processor; 0 if the kernel counts none."""
    try:
        total = Path("/proc/pressure/cpu").read_text().partition("total=")[2].split()[0]
    except OSError:
        return 0.0
    return int(total) / 1e6


def wait_for(condition: Callable[[], Any], seconds: float, what: str | Callable[[], str], every: float = 0.1) -> Any:
    """Wait until a condition is true; return its value.

    Raises AssertionError after `seconds` with `what`, the condition in words, or a function that returns it. It is asked
    again after `every` seconds.
    """
    began, before = time.monotonic(), stalled()
    while not (value := condition()):
        passed, busy = time.monotonic() - began, stalled() - before
        late = passed - min(busy, passed) * (1 - 1 / BUSY) >= seconds
        assert not late, (
            f"not within {seconds} s ({passed:.0f} s, of {busy:.0f} busy): {what() if callable(what) else what}"
        )
        time.sleep(every)
    return value
