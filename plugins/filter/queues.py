"""The queue table: what an entry of `celery_queues` leaves out follows from its profile and from the defaults."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

# The defaults that a profile changes. None changes prefetch_multiplier: with 4 or 16 no gain could be measured, and a message
# would be held that many times longer. None changes the pool: solo is faster for very short tasks, but does not enforce
# the time limits, on which the broker contract depends.
PROFILES: dict[str, dict[str, Any]] = {"critical": {}, "default": {}, "bulk": {"concurrency": 1, "cpu_weight": 20}}

# Seconds from the time limit to TimeoutStopSec: 5 in which a worker returns the tasks that it has not begun, and up to 30
# in which billiard waits for children that have not sent their results.
STOP_MARGIN = 35


@cache
def options_of_a_queue() -> dict[str, dict[str, Any]]:
    """Read what an entry of `celery_queues` may have, option to JSON Schema; without a default it follows from others."""
    schema = yaml_load((Path(__file__).parents[2] / "roles/app/meta/schema.yml").read_text())
    options: dict[str, dict[str, Any]] = schema["properties"]["celery_queues"]["additionalProperties"]["properties"]
    return options


def celery_queue_problems(queues: dict[str, Any], routes: dict[str, Any], default_queue: str) -> list[str]:
    """Say which queues are named elsewhere and are not in the table.

    :param queues: `celery_queues`, a mapping of queue name to options.
    :param routes: `celery_task_routes`, a mapping of task name or glob to queue name.
    :param default_queue: `celery_default_queue`, where tasks without a route go.
    """
    known = ", ".join(queues)
    problems = []
    if default_queue not in queues:
        problems.append(
            f"celery_default_queue is {default_queue!r}, which is not in celery_queues ({known}): name one that is, or add it."
        )
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
    """Fill in the options that the queues leave out.

    :param queues: a table in which `variable_problems` found nothing.
    :returns: queue name to all options, with `arguments` (the worker's command line options) added.
    """
    table = {}
    for name, entry in queues.items():
        profile = entry.get("profile", name if name in PROFILES else "default")
        defaults: dict[str, Any] = {option: schema.get("default") for option, schema in options_of_a_queue().items()}
        options = defaults | PROFILES[profile] | entry
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
