"""The broker contract: the inequalities that every queue must keep, and the Celery settings that follow from them.

    soft_time_limit < time_limit <= TimeoutStopSec < visibility_timeout
    longest_countdown + prefetch_multiplier x time_limit < visibility_timeout

The broker delivers a message again when it was not acknowledged within the visibility timeout. One holds for all
queues: any process that consumes gives back what any other holds, by its own figure.
"""

from __future__ import annotations

from typing import Any

# Seconds from the end of a task, at the latest, to redelivery: the acknowledgement may need a new connection (5) and
# wait for an answer (10), and the clocks of two hosts may differ (5).
VISIBILITY_MARGIN = 20
WATCHDOG = 30  # seconds, WatchdogSec of systemd/worker@.service.j2
LONGEST_VISIBILITY = 366 * 24 * 3600  # seconds; whoever needs more is better off with a row in the database


def _held(options: dict[str, Any]) -> int:
    """How many seconds a queue's message may stay unacknowledged: put off, then waiting for those before it, then run."""
    seconds: int = options["longest_countdown"] + options["prefetch_multiplier"] * options["time_limit"]
    return seconds


def _needed(options: dict[str, Any]) -> tuple[int, str]:
    """Return the least visibility timeout that a queue can live with, and its arithmetic."""
    held, stop, margin = _held(options), options["timeout_stop_sec"], VISIBILITY_MARGIN
    if stop > held:
        return stop + margin, f"timeout_stop_sec {stop} + {margin} in reserve = {stop + margin}"
    parts = (
        "longest_countdown {longest_countdown} + prefetch_multiplier {prefetch_multiplier} x time_limit {time_limit}"
    )
    return held + margin, f"{parts.format(**options)} + {margin} in reserve = {held + margin}"


def celery_visibility_timeout(table: dict[str, dict[str, Any]], wanted: int = 0) -> int:
    """Return the visibility timeout in seconds: the one that is wanted, or the least that all queues can live with."""
    return wanted or max(_needed(options)[0] for options in table.values())


def celery_contract_problems(table: dict[str, dict[str, Any]], wanted: int = 0) -> list[str]:
    """Say which inequality does not hold, with its arithmetic.

    :param table: what `celery_queue_table` returns.
    :param wanted: `celery_visibility_timeout`, seconds; 0 means the least that all queues can live with.
    :returns: one sentence per problem, naming the variables, their values and the remedy; empty when all is well.
    """
    problems = []
    for name, options in table.items():
        where = f"celery_queues.{name}"
        soft, hard, stop = (options[option] for option in ("soft_time_limit", "time_limit", "timeout_stop_sec"))
        if soft >= hard:
            problems.append(
                f"{where}.soft_time_limit is {soft} and time_limit is {hard}, but {soft} < {hard} does not hold: "
                "lower the soft limit or leave it out."
            )
        if hard > stop:
            problems.append(
                f"{where}.timeout_stop_sec is {stop} and time_limit is {hard}, but {hard} <= {stop} does not hold: a worker "
                f"that stops would be killed at its task. Set timeout_stop_sec to {hard} or more, or leave it out."
            )
        least, arithmetic = _needed(options)
        if wanted and wanted < least:
            problems.append(
                f"celery_visibility_timeout is {wanted}, and {where} needs {least}: {arithmetic}. Tasks would be delivered "
                f"again while they run or wait. Set it to {least} or more, leave it out, or lower a part of the sum."
            )
        elif least > LONGEST_VISIBILITY:
            problems.append(
                f"{where} needs a visibility timeout of {least} seconds, more than a year: {arithmetic}. Lower a part "
                "of the sum: until then, no worker would get the tasks of a lost one."
            )
    return problems


def celery_contract_lines(table: dict[str, dict[str, Any]], wanted: int = 0) -> list[str]:
    """Show the figures of a contract that holds: one line for all queues, one for each, then what the pools cannot hold."""
    visibility = celery_visibility_timeout(table, wanted)
    restore = RESTORE["unacked_restore_interval"]
    lines = [f"a message that nobody acknowledges is delivered again after {visibility} to {visibility + restore} s"]
    for name, options in table.items():
        shown = "soft {soft_time_limit} < limit {time_limit} <= stop {timeout_stop_sec}".format(**options)
        lines.append(
            f"{name} ({options['profile']}, {options['pool']} x {options['concurrency']}): "
            f"{shown} < redelivery {visibility} s; needs {_needed(options)[1]} <= {visibility}"
        )
    return lines + _weaker(table, visibility, visibility + restore)


def _weaker(table: dict[str, dict[str, Any]], soonest: int, latest: int) -> list[str]:
    """Warn of what a queue's pool cannot hold of what prefork holds.

    :param soonest: seconds until a message of a lost worker is delivered again; `latest` is the most.
    """
    lines = []
    again = f"delivered again after {soonest} to {latest} s"
    for name, options in table.items():
        each = options["tasks_per_processor"]
        tasks = f"all {each} x processors" if each else f"all {options['tasks']}"
        where, lost = (
            f"WARNING: celery_queues.{name}, pool {options['pool']}",
            f"{tasks} tasks that it runs are {again}",
        )
        limit, stop = options["time_limit"], options["timeout_stop_sec"]
        if options["pool"] == "threads":
            lines += [
                f"{where}: no time limit is enforced. A task that runs longer than {soonest} s runs twice, beside itself. One that "
                f"runs {stop} s after a stop began is killed, and {again}. A worker whose threads all run longer than {limit} s is "
                "restarted.",
            ]
        elif options["pool"] == "gevent":
            lines += [
                f"{where}: a task that computes, or waits in C code, reaches no time limit and holds up all others. After "
                f"{WATCHDOG} s the worker is killed, and {lost}.",
            ]
        elif options["pool"] == "solo":
            lines += [
                f"{where}: no time limit is enforced. A task that runs longer than {soonest} s runs twice. One that runs {stop} s after a "
                f"stop began is killed, and {again}. One that runs longer than {limit} s has the worker restarted.",
                f"{where}: when the process is killed, as when memory is used up, its task is {again}, without a count of retries.",
            ]
        if options["pool"] in ("threads", "gevent"):
            lines += [
                f"{where}: when the process is killed, as when memory is used up, {lost}, without a count of retries. With prefork it "
                "is one task, at once, as often as its max_retries says.",
            ]
    return lines


# Without these it takes kombu 5.7 up to 100 s more to look, and 300 s where the one who looked has died.
RESTORE = {"unacked_restore_interval": 5, "unacked_restore_throttle": 1, "unacked_mutex_expire": 30}


def celery_settings(
    table: dict[str, dict[str, Any]],
    routes: dict[str, str],
    default_queue: str,
    broker_url: str,
    ca_file: str = "",
    wanted: int = 0,
    scheduler: str = "",
    unknown: int = 86400,
) -> dict[str, Any]:
    """Derive the Celery settings that every process which speaks to the broker must share.

    :param table: what `celery_queue_table` returns.
    :param broker_url: the broker's address, with no password in it: Celery shows it in `inspect conf`.
    :param ca_file: whom to trust on TLS; without one the broker is reached without TLS.
    :param wanted: `celery_visibility_timeout`, seconds; 0 means the least that all queues can live with.
    :param scheduler: `celery_beat_scheduler`.
    :param unknown: `celery_unknown_task_seconds`.
    :returns: lower-case Celery settings, and four of our own: `task_longest_countdown`, queue to the seconds that its
        tasks may be put off without being delivered twice for it; `task_longest_time_limit`, after which no task of any
        queue runs any more; `task_unknown_seconds`, for which a task waits for a release that knows it; and `coldframe`,
        what the runtime itself reads: the routes, which it puts before the application's, the queues' time limits, and
        Beat's scheduler.
    """
    visibility = celery_visibility_timeout(table, wanted)
    room = {
        name: visibility - VISIBILITY_MARGIN - _held(options | {"longest_countdown": 0})
        for name, options in table.items()
    }
    # Without these kombu would verify nothing.
    tls = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
    return {
        "broker_url": broker_url,
        "broker_transport_options": {
            "visibility_timeout": visibility,
            **RESTORE,
            # A broker that hangs or is cut off is given up: for an answer, for a connection, for a BRPOP that is overdue.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "priority_steps": [0],  # priorities are queues here
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever; the default gives up after 100
        "broker_channel_error_retry": True,  # a broker that is full is waited for, too
        "broker_pool_acquire_timeout": 10,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
        "task_queues": {name: {} for name in table},
        "task_default_queue": default_queue,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        # A task whose process was killed is tried again as often as its max_retries says, after its
        # default_retry_delay; with the second alone, which remains for a broker that is away, it would be for ever.
        "task_retry_on_worker_lost": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": False,  # with django-db, a database outage would drop queued tasks
        "task_longest_countdown": room,
        "task_longest_time_limit": max(options["time_limit"] for options in table.values()),
        "task_unknown_seconds": unknown,
        "worker_prefetch_multiplier": 1,
        "beat_sync_every": 1,  # a Beat that is killed sends nothing twice
        "beat_cron_starting_deadline": 3600,  # seconds; what was missed by more waits for its next time
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "coldframe": {
            "routes": {task: {"queue": queue} for task, queue in routes.items()},
            "limits": {
                name: {option: options[option] for option in ("time_limit", "soft_time_limit")}
                for name, options in table.items()
            },
            "scheduler": scheduler,
        },
    } | ({"broker_use_ssl": tls} if ca_file else {})


def celery_web_settings(settings: dict[str, Any], control: bool = True) -> dict[str, Any]:
    """Shorten the waits on the broker for processes in which a user waits.

    A publish waits up to about three times `socket_timeout` (seconds) on a broker that hangs.

    :param control: whether these processes may use remote control; if not, coldframe.sending.control reads so in `web_control`.
    """
    options = settings["broker_transport_options"] | {"socket_timeout": 2, "socket_connect_timeout": 1}
    return (
        settings
        | {"broker_transport_options": options, "broker_pool_acquire_timeout": 2}
        | ({} if control else {"web_control": False})
    )


class FilterModule:
    """Filters of the broker contract."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {
            "celery_contract_lines": celery_contract_lines,
            "celery_contract_problems": celery_contract_problems,
            "celery_settings": celery_settings,
            "celery_visibility_timeout": celery_visibility_timeout,
            "celery_web_settings": celery_web_settings,
        }
