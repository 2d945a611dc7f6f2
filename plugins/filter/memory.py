"""What a host's share of the application takes of its memory at least, so that what cannot fit is refused before it is tried.

The figures are what the example takes, idle, on Debian 13, in MiB of proportional set size (proc_pid_smaps(5), `Pss`):
other applications take more. A service or a timer is counted with its `memory_max`; without one as much as Beat, which is a
process with Django too.
"""

from __future__ import annotations

import math
from typing import Any

SYSTEM = 100
FIXED = {
    "redis": ("Redis", 10),
    "postgresql": ("PostgreSQL", 100),
    "beat": ("Beat", 65),
    "flower": ("Flower", 50),
    "edge": ("nginx", 5),
    "monitoring": ("monitoring", 200),
}
ONCE = ("Debian", "PostgreSQL", "nginx", "monitoring")  # whichever applications a host has
WEB = (30, 30)  # MiB of the first process, and of each further one
WORKER = 50  # MiB of a worker's main process
TASK = {"prefork": 35, "threads": 0.5, "gevent": 0.5, "solo": 0}  # and of each task that it can run at the same time
UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}  # of `memory_max`, in MiB
LIMIT = "memory_max of "  # begins the part of a service or a timer that has one


def memory_parts(
    groups: list[str],
    table: dict[str, dict[str, Any]],
    served: list[str],
    web_workers: int,
    processors: int,
    processes: dict[str, dict[str, Any]],
) -> dict[str, int]:
    """Estimate what each part takes on a host, in MiB; "web" and "workers" twice while a deploy changes over.

    :param groups: those of the host.
    :param table: what `celery_queue_table` returns.
    :param served: the queues of the host.
    :param web_workers: Gunicorn's processes.
    :param processors: of the host, for `concurrency: auto`.
    :param processes: the services and timers of the host, such as `service-bot`, with their options. They are there once: a
        new one starts when the old one has stopped.
    """
    parts = {"Debian": SYSTEM} | {name: size for group, (name, size) in FIXED.items() if group in groups}
    if "web" in groups:
        parts["web"] = WEB[0] + WEB[1] * web_workers
    if "workers" in groups:
        for options in (table[queue] for queue in served if queue in table):
            tasks = options["tasks"] + options["tasks_per_processor"] * processors
            parts["workers"] = parts.get("workers", 0) + WORKER + math.ceil(TASK[options["pool"]] * tasks)
    for name, options in processes.items():
        if limit := options["memory_max"]:
            parts[LIMIT + name] = math.ceil(int(limit[:-1]) * UNITS[limit[-1]])
        else:
            parts[name] = FIXED["beat"][1]
    return parts


def memory_lines(
    parts: dict[str, int], facts: dict[str, Any], beside: dict[str, dict[str, int]] | None = None
) -> list[str]:
    """Say whether a host's memory is too little, or tight; nothing when there is enough.

    :param parts: what `memory_parts` returns.
    :param facts: with `memtotal_mb` and `swaptotal_mb`.
    :param beside: what it returns for the other applications of the host, by their names.
    :returns: no line; or one that begins with "Too little" or with "Tight".
    """
    memory, swap = facts["memtotal_mb"], facts.get("swaptotal_mb", 0)
    more = parts.get("web", 0) + parts.get("workers", 0)
    for name, others in (beside or {}).items():
        parts = parts | {f"the application {name}": sum(size for part, size in others.items() if part not in ONCE)}
    idle = sum(parts.values())
    told = f"{' + '.join(f'{name} {size}' for name, size in parts.items())} = {idle} MiB"
    limits = ", or a memory_max in app_services or app_timers" if any(LIMIT in name for name in parts) else ""
    remedy = f"Give the host more memory, lower app_web.workers or concurrency in celery_queues{limits}, or have fewer queues here."
    if idle + more > memory + swap:
        both = f"; while a deploy changes over, {more} more" if idle <= memory + swap else ""
        return [
            f"Too little memory: what runs here needs at least {told}{both}. The host has {memory} MiB and {swap} of swap. "
            f"{remedy}{' Swap will do for that moment.' if both else ''}"
        ]
    if idle + more > memory:
        return [
            f"Tight memory: what runs here needs at least {told}; while a deploy changes over, {more} more. The host has {memory} MiB. {remedy}"
        ]
    return []


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"memory_parts": memory_parts, "memory_lines": memory_lines}
