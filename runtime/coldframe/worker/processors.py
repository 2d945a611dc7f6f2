"""Gives a worker whose queue says `concurrency: auto` one process for each processor that its host may use.

Celery counts the machine's processors; a container may have a share of them.
"""

from __future__ import annotations

import os
from pathlib import Path


def count(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors this system may use, its share (cpu.max) rounded up."""
    here = len(os.sched_getaffinity(0))
    file = group / "cpu.max"
    quota, period = file.read_text().split() if file.exists() else ("max", "1")
    return here if quota == "max" else max(1, min(here, -(-int(quota) // int(period))))


def arguments(words: list[str]) -> list[str]:
    """Add the number to a command line of `celery worker` that has none."""
    if "worker" not in words or any(word.startswith("--concurrency") for word in words):
        return words
    return [*words, f"--concurrency={count()}"]
