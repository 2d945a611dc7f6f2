"""Sets the concurrency of a worker whose queue has `concurrency: auto` to the number of processors that its host may use.

With `auto*4` it is four times as many.

Celery 5.6 counts the processors of the machine. A container may have only a share of them.
"""

from __future__ import annotations

import os
from pathlib import Path

OPTION = "--concurrency="


def count(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors this system may use: its share (cpu.max), rounded up."""
    here = len(os.sched_getaffinity(0))
    file = group / "cpu.max"
    quota, period = file.read_text().split() if file.exists() else ("max", "1")
    return here if quota == "max" else max(1, min(here, -(-int(quota) // int(period))))


def arguments(words: list[str]) -> list[str]:
    """Add --concurrency to a command line of `celery worker` that lacks it, and put the number in place of `auto*4`."""
    if "worker" not in words:
        return words
    times = f"{OPTION}auto*"
    words = [f"{OPTION}{count() * int(word[len(times) :])}" if word.startswith(times) else word for word in words]
    return words if any(word.startswith(OPTION) for word in words) else [*words, f"{OPTION}{count()}"]
