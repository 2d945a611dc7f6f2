"""Whether what runs on a host fits into its memory."""

import pytest
from memory import memory_lines, memory_parts
from processes import host_options, process_table
from queues import celery_queue_table

ALL = ["redis", "postgresql", "web", "workers", "beat", "flower", "edge", "monitoring"]
TABLE = celery_queue_table(
    {"a": {}, "b": {"concurrency": "auto"}, "c": {"pool": "threads", "concurrency": 50}, "d": {"concurrency": 1}}
)


def test_parts_are_those_of_the_host():
    assert memory_parts(["edge"], TABLE, list(TABLE), 2, 8, {}) == {"Debian": 100, "nginx": 5}
    parts = memory_parts(ALL, TABLE, list(TABLE), 2, 8, {})
    assert parts["web"] == 90 and parts["workers"] == 120 + 330 + 75 + 85
    assert memory_parts(["workers"], TABLE, ["d", "gone"], 2, 8, {}) == {"Debian": 100, "workers": 85}


def test_services_and_timers_count_with_their_limit_or_as_beat():
    services = process_table(
        {"bot": {"command": "a"}, "gone": {"command": "b"}, "mail": {"command": "c", "memory_max": "2G"}},
        "app_services",
    )
    timers = process_table({"bot": {"command": "d", "calendar": "daily", "memory_max": "1536K"}}, "app_timers")
    here = host_options(services, timers, ["service-bot", "service-mail", "timer-bot"])
    parts = memory_parts(["beat"], TABLE, [], 2, 8, here)
    added = {"service-bot": 65, "memory_max of service-mail": 2048, "memory_max of timer-bot": 2}
    assert parts == {"Debian": 100, "Beat": 65} | added
    (line,) = memory_lines(parts, {"memtotal_mb": 2048, "swaptotal_mb": 0})
    assert "service-bot 65 + memory_max of service-mail 2048 + memory_max of timer-bot 2 = 2280 MiB" in line
    assert "or a memory_max in app_services or app_timers" in line and "changes over" not in line
    assert memory_lines(parts, {"memtotal_mb": 2300, "swaptotal_mb": 0}) == [], "they are there once during a deploy"


@pytest.mark.parametrize(
    "memory, swap, said",
    [
        (700, 0, "Too little"),
        (700, 400, "Too little"),  # while a deploy changes over it has twice the workers
        (700, 1300, "Tight"),
        (1700, 0, "Too little"),
        (1700, 400, "Tight"),
        (2000, 0, ""),
        (16000, 0, ""),
    ],
)
def test_what_cannot_fit_is_refused_with_the_sum(memory, swap, said):
    parts = memory_parts(ALL, TABLE, list(TABLE), 2, 8, {})
    lines = memory_lines(parts, {"memtotal_mb": memory, "swaptotal_mb": swap})
    assert [line.startswith(said) for line in lines] == ([True] if said else [])
    assert all(f"= {sum(parts.values())} MiB" in line and "app_web.workers" in line for line in lines)


def test_other_applications_of_the_host_count_once_what_all_share():
    """Debian, PostgreSQL, nginx and monitoring are there once."""
    parts = memory_parts(ALL, TABLE, list(TABLE), 2, 8, {})
    alone = {"memtotal_mb": 1600, "swaptotal_mb": 400}
    assert memory_lines(parts, alone)[0].startswith("Tight")
    (line,) = memory_lines(
        parts,
        alone,
        {"shop": {"Debian": 100, "PostgreSQL": 100, "nginx": 5, "monitoring": 200, "web": 300, "Redis": 300}},
    )
    assert line.startswith("Too little") and "the application shop 600" in line
    assert memory_lines(parts, {"memtotal_mb": 16000, "swaptotal_mb": 0}, {"shop": parts}) == []
