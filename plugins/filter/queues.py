"""The queue table: what an entry of `celery_queues` may say, and what holds where it says nothing."""

from __future__ import annotations

import re
from typing import Any

SECONDS = "seconds, a whole number from {} to 2592000 (a month)"
# What one queue may say: type, default, and what is right. "auto" means one worker process per processor of the host
# that runs it; None means that the value follows from others.
OPTIONS: dict[str, tuple[type, Any, str]] = {
    "profile": (str, None, "critical, default or bulk; the queue's own name where it is one of them, else default"),
    "concurrency": (int, 2, "a whole number from 1 to 1000, or auto"),
    "pool": (str, "prefork", "prefork, threads or solo; prefork alone ends a task at its time limits"),
    "prefetch_multiplier": (int, 1, "a whole number from 1 to 10000; how many tasks a worker holds for each process"),
    "time_limit": (int, 300, SECONDS.format(2)),
    "soft_time_limit": (int, None, SECONDS.format(1) + ", below time_limit; four fifths of it where nothing is said"),
    "longest_countdown": (
        int,
        180,
        SECONDS.format(0) + "; a task that is to be put off for longer is refused. Celery's own delay of a retry is 180",
    ),
    "timeout_stop_sec": (int, None, SECONDS.format(1) + ", not below time_limit; 35 more than it where nothing is said"),
    "max_tasks_per_child": (int, 1000, "a whole number of 1 or more"),
    "max_memory_per_child": (int, 0, "KiB, a whole number; 0 means no limit"),
    "heartbeat": (bool, False, "true or false; with it a worker sends heartbeats unasked, every 2 s, and stands still while "
                  "its broker hangs; Flower does not need them, it asks"),
    "task_events": (bool, True, "true or false; without them Flower does not show the tasks"),
    "cpu_weight": (int, 100, "a whole number from 1 to 10000; the worker's share of busy processors, where other units' is 100"),
}  # fmt: skip
# What a profile sets otherwise. Prefetching stays at 1: with 4 or 16 no gain was measured that stands out from the noise,
# and each message would be held so many times as long. Pools stay prefork: solo is faster for very short tasks, but
# enforces no time limit, and everything that follows rests on them.
PROFILES: dict[str, dict[str, Any]] = {"critical": {}, "default": {}, "bulk": {"concurrency": 1, "cpu_weight": 20}}
RANGES = {
    "concurrency": (1, 1000),
    "prefetch_multiplier": (1, 10000),
    "time_limit": (2, 2592000),
    "soft_time_limit": (1, 2592000),
    "longest_countdown": (0, 2592000),
    "timeout_stop_sec": (1, 2592000 + 3600),
    "max_memory_per_child": (0, 2**40),
    "cpu_weight": (1, 10000),
}
CHOICES = {"pool": ("prefork", "threads", "solo"), "profile": tuple(PROFILES)}
NAME = re.compile(r"(?!unacked)[a-z][a-z0-9_]{0,31}")  # kombu keeps unacked* beside the queues

# Seconds from the time limit to TimeoutStopSec: 5 in which a worker comes to rest, and up to 30 that billiard waits for
# children that do not say what became of their tasks.
STOP_MARGIN = 35


def _problem(where: str, seen: Any, right: str) -> str:
    return f"{where} is {seen!r}; it must be {right}."


def _fits(option: str, value: Any) -> bool:
    kind = OPTIONS[option][0]
    if option == "concurrency" and value == "auto":
        return True
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        return False
    if kind is int and isinstance(value, int):
        lowest, highest = RANGES.get(option, (1, 2**31 - 1))
        return lowest <= value <= highest
    return kind is bool or value in CHOICES[option]


def _queue_problems(name: Any, entry: Any) -> list[str]:
    where = f"celery_queues.{name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        right = "lower-case letters, digits and _, at most 32, beginning with a letter, and not with unacked"
        return [_problem(f"The queue name {name!r} in celery_queues", name, right)]
    if not isinstance(entry, dict):
        return [_problem(where, entry, "a mapping of options, {} for the defaults")]
    return [
        f"{where}.{option} is unknown. Known options: {', '.join(sorted(OPTIONS))}."
        for option in sorted(set(entry) - set(OPTIONS), key=str)
    ] + [
        _problem(f"{where}.{option}", entry[option], OPTIONS[option][2])
        for option in OPTIONS
        if option in entry and not _fits(option, entry[option])
    ]


def celery_queue_problems(queues: Any, routes: Any, default_queue: Any) -> list[str]:
    """Say what is wrong with the queue table and its routes.

    :param queues: `celery_queues`, a mapping of queue name to options.
    :param routes: `celery_task_routes`, a mapping of task name or glob to queue name.
    :param default_queue: `celery_default_queue`, where tasks without a route go.
    :returns: one sentence per problem, naming the variable, the value and the remedy; empty when all is well.
    """
    if not isinstance(queues, dict) or not queues:
        return [_problem("celery_queues", queues, "a mapping of at least one queue name to its options")]
    problems = [problem for name, entry in queues.items() for problem in _queue_problems(name, entry)]
    known = ", ".join(map(str, queues))
    if not isinstance(default_queue, str) or default_queue not in queues:
        problems.append(
            f"celery_default_queue is {default_queue!r}, which is not in celery_queues ({known}): name one that is, or add it."
        )
    if not isinstance(routes, dict):
        return [*problems, _problem("celery_task_routes", routes, "a mapping of task name to queue name")]
    return problems + [
        f"celery_task_routes[{task!r}] leads to {queue!r}, which is not in celery_queues ({known}): add the queue there or change the route."
        for task, queue in routes.items()
        if not isinstance(queue, str) or queue not in queues
    ]


def _arguments(name: str, options: dict[str, Any]) -> list[str]:
    """List the options of the `celery worker` that serves a queue."""
    arguments = [
        f"--queues={name}",
        f"--pool={options['pool']}",
        f"--prefetch-multiplier={options['prefetch_multiplier']}",
    ]
    if options["concurrency"] != "auto":
        arguments.append(f"--concurrency={options['concurrency']}")
    if not options["heartbeat"]:
        arguments.append("--without-heartbeat")
    if options["task_events"]:  # Flower does not turn them on
        arguments.append("--task-events")
    if options["pool"] == "prefork":  # the only pool that enforces limits and recycles
        limits = ("time_limit", "soft_time_limit", "max_tasks_per_child")
        arguments += [f"--{option.replace('_', '-')}={options[option]}" for option in limits]
        if options["max_memory_per_child"]:
            arguments.append(f"--max-memory-per-child={options['max_memory_per_child']}")
    return arguments


def celery_queue_table(queues: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fill in what a queue does not say: by its profile, by the defaults, and by what it does say.

    :param queues: a table in which `celery_queue_problems` found nothing.
    :returns: queue name to all options, with `arguments` (the worker's command line options) added.
    """
    table = {}
    for name, entry in queues.items():
        profile = entry.get("profile", name if name in PROFILES else "default")
        options = {option: default for option, (_, default, _) in OPTIONS.items()} | PROFILES[profile] | entry
        follows = {
            "profile": profile,
            "soft_time_limit": max(1, options["time_limit"] * 4 // 5),
            "timeout_stop_sec": options["time_limit"] + STOP_MARGIN,
        }
        options |= {option: value for option, value in follows.items() if options[option] is None}
        table[name] = options | {"arguments": _arguments(name, options)}
    return table


class FilterModule:
    """Filters of the queue table."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"celery_queue_problems": celery_queue_problems, "celery_queue_table": celery_queue_table}
