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

# Options that a pool does not know, and what to do instead. An entry that has one is refused.
_ONE_PROCESS = "all tasks run in one process, which is not replaced: leave it out"
_FOLLOWS = f"leave it out. What a task may take follows from timeout_stop_sec, which is {STOP_MARGIN} seconds more"
IGNORED: dict[str, dict[str, str]] = {
    "threads": {
        "time_limit": f"no thread can be ended: {_FOLLOWS}",
        "soft_time_limit": "no thread can be interrupted: leave it out, and give each call of a task a timeout of its own",
        "max_tasks_per_child": _ONE_PROCESS,
        "max_memory_per_child": _ONE_PROCESS,
    },
    "gevent": {"max_tasks_per_child": _ONE_PROCESS, "max_memory_per_child": _ONE_PROCESS},
    "solo": {
        "concurrency": "one task runs at a time: leave it out",
        "time_limit": f"tasks run in the main process, which ends none: {_FOLLOWS}",
        "soft_time_limit": "tasks run in the main process, which interrupts none: leave it out",
        "max_tasks_per_child": _ONE_PROCESS,
        "max_memory_per_child": _ONE_PROCESS,
    },
}
# Those that end no task. The time limit is what a stop leaves a task, and after what the watch restarts the worker.
WITHOUT_LIMITS = ("threads", "solo")
LIMITS = ("time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child")


@cache
def options_of_a_queue() -> dict[str, dict[str, Any]]:
    """Read what an entry of `celery_queues` may have, option to JSON Schema; without a default it follows from others."""
    schema = yaml_load((Path(__file__).parents[2] / "roles/app/meta/schema.yml").read_text())
    options: dict[str, dict[str, Any]] = schema["properties"]["celery_queues"]["additionalProperties"]["properties"]
    return options


def celery_queue_problems(queues: dict[str, Any], routes: dict[str, Any], default_queue: str) -> list[str]:
    """Say which queues are named elsewhere and are not in the table, and which options have no effect with their pool.

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
    problems += [
        f"celery_queues.{name}.{option} is {entry[option]!r} and pool is {entry['pool']}: {reason}."
        for name, entry in queues.items()
        for option, reason in IGNORED.get(entry.get("pool", ""), {}).items()
        if option in entry and (option, entry[option]) != ("concurrency", 1)
    ]
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
    if options["concurrency"] != "auto" and options["pool"] != "solo":
        arguments.append(f"--concurrency={options['concurrency']}")
    if not options["heartbeat"]:
        arguments.append("--without-heartbeat")
    if options["task_events"]:  # Flower does not turn them on
        arguments.append("--task-events")
    known = [option for option in LIMITS if option not in IGNORED.get(options["pool"], {})]
    if options["pool"] in WITHOUT_LIMITS:
        known.append("time_limit")  # for the watch: when each task is past it, the worker is restarted
    arguments += [f"--{option.replace('_', '-')}={options[option]}" for option in known if options[option]]
    return arguments


def celery_queue_table(queues: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fill in the options that the queues leave out.

    :param queues: a table in which `variable_problems` found nothing.
    :returns: queue name to all options, with these added: `arguments`, the worker's command line options; `tasks` and
        `tasks_per_processor`, how many it runs at the same time: one of them is 0.
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
        if options["pool"] in WITHOUT_LIMITS and "timeout_stop_sec" in entry:
            options["time_limit"] = max(2, entry["timeout_stop_sec"] - STOP_MARGIN)
            follows["soft_time_limit"] = max(1, options["time_limit"] * 4 // 5)
        options |= {option: value for option, value in follows.items() if options[option] is None}
        if options["pool"] == "solo":
            options["concurrency"] = 1
        auto, _, times = str(options["concurrency"]).partition("*")
        each = int(times or 1) if auto == "auto" else 0
        tasks = 0 if each else options["concurrency"]
        more = {"arguments": _arguments(name, options), "tasks": tasks, "tasks_per_processor": each}
        table[name] = options | more
    return table


class FilterModule:
    """Filters of the queue table."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"celery_queue_problems": celery_queue_problems, "celery_queue_table": celery_queue_table}
