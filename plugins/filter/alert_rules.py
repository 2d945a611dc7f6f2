"""The rules of Prometheus' alerts. Their thresholds follow from the queue table."""

from __future__ import annotations

from typing import Any

# What the role alerts has as defaults: percent of a disk and of the memory, and days.
THRESHOLDS = {"disk_free_percent": 10, "memory_available_percent": 5, "certificate_days": 14}
AFTER = "5m"  # for how long a planned stop counts after its end: workers start, and queue probes have waited
OVERDUE = 90  # seconds a queue probe may wait where no task can be the reason; one is sent every 30
DAY = 86400  # seconds
# Parts of a message: Prometheus fills in the labels and the value of the alert.
HOST, QUEUE, PART = "{{ $labels.instance }}", "{{ $labels.queue }}", "{{ $labels.part }}"
COUNT, SPAN = "{{ $value | humanize }}", "{{ $value | humanizeDuration }}"
PERCENT = "{{ $value | humanizePercentage }}"


def _rule(
    name: str, severity: str, expression: str, summary: str, runbook: str, lasts: str = "", **labels: str
) -> dict[str, Any]:
    """Make a rule.

    :param severity: `critical` if users notice, or soon will; else `warning`.
    :param summary: one sentence.
    :param runbook: a page of docs/runbooks, without `.md`, and with `#` and a heading if it is one of several there.
    :param lasts: for how long the expression must hold; if empty, once.
    """
    page, _, heading = runbook.partition("#")
    rule: dict[str, Any] = {"alert": name, "expr": expression}
    if lasts:
        rule["for"] = lasts
    return rule | {
        "labels": {"severity": severity, **labels},
        "annotations": {"summary": summary, "runbook_url": f"{page}.md{'#' if heading else ''}{heading}"},
    }


def _unplanned(expression: str, label: str = "") -> str:
    """Leave out of an expression what is stopped on purpose: all of it in maintenance, and with a label the paused queues.

    :param label: `queue` or `part`, by which the expression names a queue or its workers.
    """
    paused = f" unless on ({label}) max_over_time(coldframe_queue_paused[{AFTER}])" if label else ""
    return f"({expression}){paused} unless on () max_over_time(coldframe_maintenance[{AFTER}]) == 1"


def _host_rules(thresholds: dict[str, int]) -> list[dict[str, Any]]:
    """Of servers: whether they are there, and whether they have room.

    :param thresholds: as THRESHOLDS.
    """
    disk, available = (thresholds[f"{name}_percent"] / 100 for name in ("disk_free", "memory_available"))
    days = thresholds["certificate_days"]
    full = "node_filesystem_avail_bytes / node_filesystem_size_bytes"
    memory = "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"
    # Between hosts, and what the edge shows its clients.
    certificates = 'coldframe_certificate_expiry_timestamp_seconds or probe_ssl_earliest_cert_expiry{job="edge"}'
    expires = f"min by (instance, certificate) ({certificates}) - time()"
    left = f"The certificate {{{{ $labels.certificate }}}} of {HOST} expires in {SPAN}."
    return [
        _rule("HostDown", "critical", 'up{job="coldframe"} == 0', f"{HOST} does not answer.", "host-down", "1m"),
        _rule(
            "ExporterDown",
            "warning",
            'up{job!="coldframe"} == 0 unless on (instance) up{job="coldframe"} == 0',
            f"The metrics of {{{{ $labels.job }}}} on {HOST} cannot be read.",
            "exporter-down",
            "3m",
        ),
        _rule(
            "DiskFills",
            "warning",
            f"{full} < {disk}",
            f"{HOST}:{{{{ $labels.mountpoint }}}} has {PERCENT} left.",
            "disk-full",
            "5m",
        ),
        _rule(
            "DiskFull",
            "critical",
            f"{full} < 0.03",
            f"{HOST}:{{{{ $labels.mountpoint }}}} has {PERCENT} left.",
            "disk-full",
            "30s",
        ),
        _rule(
            "MemoryLow",
            "warning",
            f"{memory} < {available}",
            f"{HOST} has {PERCENT} of its memory left.",
            "memory-low",
            "5m",
        ),
        _rule(
            "UnitFailed",
            "critical",
            _unplanned('node_systemd_unit_state{state="failed"} == 1'),
            f"{{{{ $labels.name }}}} on {HOST} has failed: systemd does not start it again.",
            "unit-down",
            "30s",
        ),
        _rule(
            "UnitRestarted",
            "warning",
            _unplanned("increase(node_systemd_service_restart_total[5m]) > 0"),
            f"{{{{ $labels.name }}}} on {HOST} ended by itself, and systemd has started it again.",
            "unit-down",
        ),
        _rule("CertificateExpires", "warning", f"{expires} < {days * DAY}", left, "certificate-expires", "5m"),
        _rule(
            "CertificateExpiresSoon", "critical", f"{expires} < {min(days, 3) * DAY}", left, "certificate-expires", "5m"
        ),
    ]


def _service_rules(connections: int) -> list[dict[str, Any]]:
    """Of the broker, the database and the web.

    :param connections: how many PostgreSQL allows.
    """
    used = 'redis_memory_used_bytes{redis="broker"} / (redis_memory_max_bytes{redis="broker"} > 0)'
    memory = f"The broker's memory is {PERCENT} full."
    status = 'probe_http_status_code{job="edge"}'
    return [
        _rule(
            "BrokerDown",
            "critical",
            _unplanned("coldframe_broker_up == 0"),
            "The broker does not answer.",
            "broker-stopped",
            "30s",
        ),
        _rule("BrokerMemoryFills", "warning", f"{used} > 0.75", memory, "broker-memory-full", "2m"),
        _rule("BrokerMemoryFull", "critical", f"{used} > 0.95", memory, "broker-memory-full", "30s"),
        _rule(
            "BrokerLogFails",
            "critical",
            'redis_aof_last_write_status{redis="broker"} == 0',
            "The broker cannot write its log: it accepts nothing.",
            "broker-disk-full",
        ),
        _rule(
            "CacheDown",
            "warning",
            _unplanned('redis_up{redis="cache"} == 0'),
            "The cache does not answer.",
            "unit-down",
            "30s",
        ),
        _rule(
            "DatabaseDown",
            "critical",
            _unplanned("pg_up == 0"),
            "PostgreSQL does not answer.",
            "database-stopped",
            "30s",
        ),
        _rule(
            "DatabaseConnections",
            "warning",
            f"sum by (instance) (pg_stat_activity_count) / {connections} > 0.85",
            f"{PERCENT} of PostgreSQL's {connections} connections are in use.",
            "database-connections",
            "5m",
        ),
        _rule(
            "WebDown",
            "critical",
            _unplanned(f"{status} == 0 or {status} >= 500"),
            f"The edge {HOST} answers {{{{ $value }}}} (0: nothing).",
            "web-killed",
            "30s",
        ),
    ]


def _queue_rules(table: dict[str, dict[str, Any]], visibility_timeout: int) -> list[dict[str, Any]]:
    """Of queues, each with the threshold that follows from its options."""
    rules = []
    for queue, options in table.items():
        # A task that keeps all processes busy is no fault, up to its time limit.
        busy = options["time_limit"]
        most = options.get("wait_slo") or OVERDUE
        longest = max(OVERDUE, most) + busy
        wait = f'coldframe_queue_probe_wait_seconds{{queue="{queue}"}}'
        rules.append(
            _rule(
                "QueueWaits",
                "warning",
                _unplanned(f"{wait} > {most} <= {longest}", "queue"),
                f"A message of the queue {queue} waits {SPAN}: longer than {most} s.",
                "README#a-queue-is-overdue",
                "2m",
            )
        )
        rules.append(
            _rule(
                "QueueNotServed",
                "critical",
                _unplanned(f"{wait} > {longest}", "queue"),
                f"A message of the queue {queue} waits {SPAN}: longer than a task may run ({busy} s).",
                "README#a-queue-is-overdue",
            )
        )
        rules.append(
            _rule(
                "DrainLong",
                "warning",
                f'coldframe_unit_draining_seconds{{part="worker-{queue}"}} > {busy}',
                f"{{{{ $labels.unit }}}} on {HOST} has been draining for {SPAN}: longer than a task may run ({busy} s).",
                "drain-long",
            )
        )
    known = "|".join(table)
    return [
        *rules,
        _rule(
            "QueueUnknown",
            "warning",
            f'coldframe_queue_waiting{{queue!~"{known}"}} + coldframe_queue_parked > 0',
            f"Messages in the queue {QUEUE}, which is in no table: {COUNT}.",
            "messages-left",
            "1m",
        ),
        _rule(
            "TasksParked",
            "warning",
            "coldframe_queue_parked > 0",
            f"Messages of the queue {QUEUE} that wait for a release that knows their tasks: {COUNT}.",
            "messages-left",
            "5m",
        ),
        _rule(
            "DeadLetters",
            "warning",
            "coldframe_queue_dead_letters > 0",
            f"Dead letters of the queue {QUEUE}: {COUNT}.",
            "messages-left",
        ),
        _rule(
            "MessageHeld",
            "warning",
            f"coldframe_unacked_oldest_seconds > {visibility_timeout}",
            f"A worker has held a message for {SPAN}, longer than the visibility timeout ({visibility_timeout} s): it is delivered twice.",
            "task-delivered-twice",
            "1m",
        ),
    ]


def _part_rules() -> list[dict[str, Any]]:
    """Of the application's processes and its tasks."""
    parts = 'coldframe_unit_state{part!~"timer-.*"}'
    failed = 'sum by (task) (increase(flower_events_total{type="task-failed"}[10m]))'
    ended = 'sum by (task) (increase(flower_events_total{type=~"task-failed|task-succeeded"}[10m]))'
    return [
        _rule(
            "PartDown",
            "critical",
            _unplanned(
                f'count by (part) ({parts}) unless count by (part) (coldframe_unit_state{{state="active"}})', "part"
            ),
            f"No unit of {PART} is active on any host.",
            "unit-down",
            "30s",
        ),
        _rule(
            "UnitDown",
            "warning",
            _unplanned(
                f"count by (instance, part) ({parts})"
                ' unless count by (instance, part) (coldframe_unit_state{state="active"})',
                "part",
            ),
            f"No unit of {PART} is active on {HOST}.",
            "unit-down",
            "1m",
        ),
        _rule(
            "BeatDown",
            "critical",
            _unplanned("coldframe_beat_lease == 0"),
            "No Beat ticks: periodic tasks are not sent.",
            "beat-killed",
            "30s",
        ),
        _rule(
            "ReleasesDiffer",
            "warning",
            "count(count by (release) (coldframe_release_info)) > 1",
            "The hosts run {{ $value }} different releases.",
            "releases-differ",
            "30m",
        ),
        _rule(
            "TasksFail",
            "warning",
            f"{failed} > 5 and {failed} / {ended} > 0.1",
            "{{ $labels.task }} failed {{ $value | humanize }} times in 10 minutes.",
            "tasks-fail",
        ),
    ]


def _own_rules() -> list[dict[str, Any]]:
    """Of monitoring itself."""
    return [
        _rule(
            "Watchdog", "none", "vector(1)", "This alert always fires: it shows that alerts arrive.", "alerts-not-sent"
        ),
        _rule(
            "AlertsNotSent",
            "critical",
            "increase(alertmanager_notifications_failed_total[5m]) > 0",
            "Alertmanager cannot send by {{ $labels.integration }}.",
            "alerts-not-sent",
            "2m",
        ),
    ]


def alert_rules(
    table: dict[str, dict[str, Any]],
    visibility_timeout: int,
    connections: int,
    runbooks: str = "docs/runbooks/",
    thresholds: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Make the rules, as Prometheus reads them.

    :param table: what `celery_queue_table` returns.
    :param visibility_timeout: in seconds.
    :param connections: how many PostgreSQL allows (`postgresql_max_connections`).
    :param runbooks: what the address of a runbook begins with.
    :param thresholds: `disk_free_percent`, `memory_available_percent` and `certificate_days`; as THRESHOLDS if None.
    :returns: `groups`, each with its `rules`.
    """
    groups = {
        "hosts": _host_rules(THRESHOLDS | (thresholds or {})),
        "services": _service_rules(connections),
        "queues": _queue_rules(table, visibility_timeout),
        "application": _part_rules(),
        "monitoring": _own_rules(),
    }
    for rules in groups.values():
        for rule in rules:
            rule["annotations"]["runbook_url"] = runbooks + rule["annotations"]["runbook_url"]
    return {"groups": [{"name": f"coldframe-{name}", "rules": rules} for name, rules in groups.items()]}


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"alert_rules": alert_rules}
