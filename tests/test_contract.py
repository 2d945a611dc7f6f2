"""The broker contract: which inequality is refused, and the settings that follow."""

from pathlib import Path

import pytest
from contract import (
    celery_contract_lines,
    celery_contract_problems,
    celery_settings,
    celery_visibility_timeout,
    celery_web_settings,
)
from queues import celery_queue_table

ROOT = Path(__file__).parents[1]


def table(**queues):
    return celery_queue_table(queues or {"critical": {}, "bulk": {"time_limit": 900}})


def settings(wanted=0, **queues):
    return celery_settings(table(**queues), {"a": "critical"}, "critical", "redis+socket:///s", wanted=wanted)


@pytest.mark.parametrize(
    "options, seconds",
    [
        ({}, 180 + 300 + 20),
        ({"time_limit": 10, "longest_countdown": 20}, 45 + 20),
        ({"time_limit": 10, "longest_countdown": 3600}, 3600 + 10 + 20),
        ({"prefetch_multiplier": 4}, 180 + 4 * 300 + 20),
        ({"timeout_stop_sec": 7200}, 7200 + 20),
    ],
)
def test_redelivery_comes_after_the_longest_that_a_message_may_be_held(options, seconds):
    assert celery_visibility_timeout(table(a=options)) == seconds
    assert celery_visibility_timeout(table(a=options, b={"time_limit": 2, "longest_countdown": 0})) == seconds


@pytest.mark.parametrize(
    "options, wanted, said",
    [
        ({"soft_time_limit": 300}, 0, ["celery_queues.a.soft_time_limit is 300 and time_limit is 300", "300 < 300"]),
        ({"timeout_stop_sec": 60}, 0, ["celery_queues.a.timeout_stop_sec is 60", "300 <= 60", "Set timeout_stop_sec"]),
        (
            {"prefetch_multiplier": 4},
            500,
            [
                "celery_visibility_timeout is 500, and celery_queues.a needs 1400",
                "longest_countdown 180 + prefetch_multiplier 4 x time_limit 300 + 20 in reserve = 1400",
                "Set it to 1400 or more",
            ],
        ),
        ({"timeout_stop_sec": 900}, 500, ["needs 920: timeout_stop_sec 900 + 20 in reserve = 920"]),
        ({"prefetch_multiplier": 10000, "time_limit": 86400}, 0, ["more than a year", "10000 x time_limit 86400"]),
    ],
)
def test_what_cannot_hold_is_refused_with_its_arithmetic(options, wanted, said):
    (problem,) = celery_contract_problems(table(a=options, b={"time_limit": 60}), wanted)
    assert all(words in problem for words in said), problem


def test_what_holds_is_not_refused():
    assert celery_contract_problems(table()) == []
    assert celery_contract_problems(table(a={}), 500) == []


def test_the_figures_are_shown():
    lines = celery_contract_lines(table(critical={}, mail={"profile": "bulk", "time_limit": 900}))
    assert lines == [
        "a message that nobody acknowledges is delivered again after 1100 to 1105 s",
        "critical (critical, prefork x 2): soft 240 < limit 300 <= stop 335 < redelivery 1100 s; needs "
        "longest_countdown 180 + prefetch_multiplier 1 x time_limit 300 + 20 in reserve = 500 <= 1100",
        "mail (bulk, prefork x 1): soft 720 < limit 900 <= stop 935 < redelivery 1100 s; needs "
        "longest_countdown 180 + prefetch_multiplier 1 x time_limit 900 + 20 in reserve = 1100 <= 1100",
    ]


def test_what_a_pool_cannot_hold_is_said_with_the_figures():
    lines = celery_contract_lines(table(api={"pool": "threads", "concurrency": 200, "timeout_stop_sec": 95}))
    assert [line for line in lines if "WARNING" in line] == [
        "WARNING: celery_queues.api, pool threads: no time limit is enforced. A task that runs longer than 260 s runs twice, beside "
        "itself. One that runs 95 s after a stop began is killed, and delivered again after 260 to 265 s. A worker whose threads all "
        "run longer than 60 s is restarted.",
        "WARNING: celery_queues.api, pool threads: when the process is killed, as when memory is used up, all 200 tasks that it runs "
        "are delivered again after 260 to 265 s, without a count of retries. With prefork it is one task, at once, as often as its "
        "max_retries says.",
    ]
    lines = celery_contract_lines(table(api={"pool": "gevent", "concurrency": "auto*4", "time_limit": 60}))
    computes, killed = [line for line in lines if "WARNING" in line]
    assert (
        "After 30 s the worker is killed, and all 4 x processors tasks that it runs are delivered again after 260"
        in computes
    )
    assert "all 4 x processors tasks" in killed
    lines = celery_contract_lines(table(api={"pool": "solo", "timeout_stop_sec": 95}))
    assert [line for line in lines if "WARNING" in line] == [
        "WARNING: celery_queues.api, pool solo: no time limit is enforced. A task that runs longer than 260 s runs twice. One that runs "
        "95 s after a stop began is killed, and delivered again after 260 to 265 s. One that runs longer than 60 s has the worker restarted.",
        "WARNING: celery_queues.api, pool solo: when the process is killed, as when memory is used up, its task is delivered again after "
        "260 to 265 s, without a count of retries.",
    ]
    assert "WatchdogSec=30\n" in (ROOT / "systemd/worker@.service.j2").read_text()


def test_settings_carry_the_contract():
    shared = settings()
    options = shared["broker_transport_options"]
    assert options["visibility_timeout"] == 180 + 900 + 20
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] == 5
    assert shared["coldframe"]["routes"] == {"a": {"queue": "critical"}}
    assert shared["coldframe"]["limits"]["bulk"] == {"time_limit": 900, "soft_time_limit": 720}
    assert not {"task_routes", "timezone", "enable_utc"} & set(shared), "these are the application's"
    assert shared["accept_content"] == ["json"] and shared["task_acks_late"] is True
    assert shared["task_longest_countdown"] == {"critical": 780, "bulk": 180}
    assert settings(wanted=5000)["broker_transport_options"]["visibility_timeout"] == 5000


def test_web_waits_less_and_agrees_on_redelivery():
    shared = settings()
    web = celery_web_settings(shared)
    mine, others = web["broker_transport_options"], shared["broker_transport_options"]
    assert mine["visibility_timeout"] == others["visibility_timeout"]
    for wait in ("socket_timeout", "socket_connect_timeout"):
        assert mine[wait] < others[wait]
    assert web["broker_pool_acquire_timeout"] < shared["broker_pool_acquire_timeout"]
