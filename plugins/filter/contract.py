"""The one place that turns `celery_queues` into settings, and that refuses what cannot hold."""

from __future__ import annotations

import re
from typing import Any

# What one queue may say: type, default, and what is right. "auto" means one
# worker process per processor of the host that runs it.
QUEUE_OPTIONS: dict[str, tuple[type, Any, str]] = {
    "concurrency": (int, 2, "a whole number from 1 to 1000, or auto"),
    "pool": (str, "prefork", "prefork, threads or solo"),
    "prefetch_multiplier": (int, 1, "a whole number from 1 to 10000"),
    "time_limit": (int, 300, "seconds, a whole number from 1 to 2592000, a month"),
    "soft_time_limit": (int, 240, "seconds, a whole number from 1 to 2592000"),
    "max_tasks_per_child": (int, 1000, "a whole number of 1 or more"),
    "max_memory_per_child": (int, 0, "KiB, a whole number; 0 means no limit"),
    "nice": (int, 0, "a whole number from -20 to 19"),
}
RANGES = {
    "concurrency": (1, 1000),
    "prefetch_multiplier": (1, 10000),
    "time_limit": (1, 2592000),
    "soft_time_limit": (1, 2592000),
    "max_memory_per_child": (0, 2**40),
    "nice": (-20, 19),
}
POOLS = ("prefork", "threads", "solo")
QUEUE_NAME = re.compile(r"(?!unacked)[a-z][a-z0-9_]{0,31}")  # kombu keeps unacked* beside the queues

STOP_MARGIN = 30  # seconds from a task's time limit to the unit's TimeoutStopSec
VISIBILITY_MARGIN = 120  # seconds from the longest time limit to redelivery


def _problem(where: str, seen: Any, right: str) -> str:
    return f"{where} is {seen!r}; it must be {right}."


def _queue_problems(name: Any, entry: Any) -> list[str]:
    where = f"celery_queues.{name}"
    if not isinstance(name, str) or not QUEUE_NAME.fullmatch(name):
        return [
            _problem(
                f"The queue name {name!r} in celery_queues",
                name,
                "lower-case letters, digits and _, at most 32, beginning with a letter, and not with unacked",
            )
        ]
    if not isinstance(entry, dict):
        return [_problem(where, entry, "a mapping of options, {} for the defaults")]
    problems = [
        f"{where}.{option} is unknown. Known options: {', '.join(sorted(QUEUE_OPTIONS))}."
        for option in sorted(set(entry) - set(QUEUE_OPTIONS), key=str)
    ]
    for option, (kind, default, right) in QUEUE_OPTIONS.items():
        value = entry.get(option, default)
        lowest, highest = RANGES.get(option, (1, 2**31 - 1))
        if option == "concurrency" and value == "auto":
            continue
        typed = isinstance(value, kind) and not isinstance(value, bool)
        fits = typed and lowest <= value <= highest if kind is int else typed and value in POOLS
        if not fits:
            problems.append(_problem(f"{where}.{option}", value, right))
    if not problems:
        soft, hard = (entry.get(o, QUEUE_OPTIONS[o][1]) for o in ("soft_time_limit", "time_limit"))
        if soft >= hard:
            problems.append(
                f"{where}.soft_time_limit is {soft} and time_limit is {hard}; the soft limit must be the lower one."
            )
    return problems


def celery_problems(queues: Any, routes: Any, default_queue: Any) -> list[str]:
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


def celery_queue_table(queues: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fill in each queue's defaults and what follows from them.

    :param queues: a table in which `celery_problems` found nothing.
    :returns: queue name to options, with `timeout_stop_sec` (seconds a stopping worker may take)
        and `arguments` (the worker's command line options) added.
    """
    table = {}
    for name, entry in queues.items():
        options = {option: default for option, (_, default, _) in QUEUE_OPTIONS.items()} | entry
        options["timeout_stop_sec"] = options["time_limit"] + STOP_MARGIN
        arguments = [
            f"--queues={name}",
            f"--pool={options['pool']}",
            f"--prefetch-multiplier={options['prefetch_multiplier']}",
        ]
        if options["concurrency"] != "auto":
            arguments.append(f"--concurrency={options['concurrency']}")
        if options["pool"] == "prefork":  # the only pool that enforces limits and recycles
            arguments += [
                f"--{o.replace('_', '-')}={options[o]}"
                for o in ("time_limit", "soft_time_limit", "max_tasks_per_child")
            ]
            if options["max_memory_per_child"]:
                arguments.append(f"--max-memory-per-child={options['max_memory_per_child']}")
        table[name] = options | {"arguments": arguments}
    return table


def celery_settings(
    queues: dict[str, dict[str, Any]], routes: dict[str, str], default_queue: str, broker_url: str, ca_file: str = ""
) -> dict[str, Any]:
    """Derive the Celery settings that every process which speaks to the broker must share.

    :param broker_url: the broker's address, with no password in it: Celery shows it in `inspect conf`.
    :param ca_file: whom to trust on TLS; without one the broker is reached without TLS.
    :returns: lower-case Celery settings. `visibility_timeout` (seconds) lies above every time limit, so
        that a task is not delivered again while it runs; `unacked_restore_interval` with throttle 1 bounds
        how long after that a dead worker's tasks come back (kombu 5.7 would take up to 100 s more).
    """
    table = celery_queue_table(queues)
    longest = max(options["time_limit"] for options in table.values())
    # Without these kombu would verify nothing.
    tls = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
    return {
        "broker_url": broker_url,
        "broker_transport_options": {
            "visibility_timeout": longest + VISIBILITY_MARGIN,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "priority_steps": [0],  # priorities are queues here
        },
        "broker_connection_retry_on_startup": True,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
        "task_queues": {name: {} for name in table},
        "task_default_queue": default_queue,
        "task_create_missing_queues": False,
        "task_routes": {task: {"queue": queue} for task, queue in routes.items()},
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": False,  # with django-db, a database outage would drop queued tasks
        "task_time_limit": longest,
        "task_soft_time_limit": max(options["soft_time_limit"] for options in table.values()),
        "worker_prefetch_multiplier": 1,
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "timezone": "UTC",
        "enable_utc": True,
    } | ({"broker_use_ssl": tls} if ca_file else {})


def celery_web_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Shorten the waits on the broker for processes in which a user waits.

    A publish waits up to about three times `socket_timeout` (seconds) on a broker that hangs.
    """
    options = settings["broker_transport_options"] | {"socket_timeout": 2, "socket_connect_timeout": 1}
    return settings | {"broker_transport_options": options}


class FilterModule:
    """Filters of the broker contract."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {
            "celery_problems": celery_problems,
            "celery_queue_table": celery_queue_table,
            "celery_settings": celery_settings,
            "celery_web_settings": celery_web_settings,
        }
