"""The queue table: what is refused, and what holds where an entry says nothing."""

import json
import re
from pathlib import Path

import pytest
from alert_rules import alert_rules
from contract import celery_settings
from inventory import variable_problems
from queues import PROFILES, WITHOUT_LIMITS, celery_queue_problems, celery_queue_table, options_of_a_queue

ROOT = Path(__file__).parents[1]

QUEUES = {"critical": {}, "bulk": {"concurrency": "auto", "cpu_weight": 1, "time_limit": 900}}


def problems(queues=None, routes=None, default="critical"):
    queues = QUEUES if queues is None else queues
    table = {"celery_queues": queues, "celery_task_routes": routes or {}, "celery_default_queue": default}
    found = [problem for problem in variable_problems(table, str(ROOT)) if " is missing: " not in problem]
    return found or celery_queue_problems(queues, routes or {}, default)


def test_a_right_table_has_no_problem():
    assert problems(routes={"a.*": "bulk"}) == []


@pytest.mark.parametrize(
    "queues, said",
    [
        ({}, "celery_queues is {}; it must be a mapping of at least one"),
        ([], "celery_queues is []"),
        ({"critical": None}, "celery_queues.critical is None; it must be a mapping of options"),
        ({"critical": {"concurency": 1}}, "celery_queues.critical.concurency is unknown. Known options: concurrency"),
        ({"critical": {"concurrency": 0}}, "celery_queues.critical.concurrency is 0; it must be a whole number from 1"),
        ({"critical": {"concurrency": True}}, "celery_queues.critical.concurrency is True"),
        ({"critical": {"concurrency": "2"}}, "celery_queues.critical.concurrency is '2'"),
        ({"critical": {"time_limit": "auto"}}, "celery_queues.critical.time_limit is 'auto'"),
        ({"critical": {"soft_time_limit": None}}, "celery_queues.critical.soft_time_limit is None"),
        (
            {"critical": {"pool": "eventlet"}},
            "celery_queues.critical.pool is 'eventlet'; it must be prefork, threads, gevent",
        ),
        (
            {"critical": {"concurrency": "auto*0"}},
            "celery_queues.critical.concurrency is 'auto*0'; it must be a whole number from 1 to 1000, or auto, or auto*1 to auto*100.",
        ),
        ({"critical": {"concurrency": "4*auto"}}, "celery_queues.critical.concurrency is '4*auto'"),
        (
            {"critical": {"pool": "threads", "time_limit": 60}},
            "celery_queues.critical.time_limit is 60 and pool is threads: no thread can be ended: leave it out. What a task may",
        ),
        (
            {"critical": {"pool": "threads", "soft_time_limit": 9}},
            "critical.soft_time_limit is 9 and pool is threads: no thread",
        ),
        (
            {"critical": {"pool": "threads", "max_tasks_per_child": 9}},
            "max_tasks_per_child is 9 and pool is threads: all tasks",
        ),
        (
            {"critical": {"pool": "gevent", "max_memory_per_child": 0}},
            "max_memory_per_child is 0 and pool is gevent: all tasks",
        ),
        (
            {"critical": {"pool": "solo", "concurrency": "auto"}},
            "concurrency is 'auto' and pool is solo: one task runs",
        ),
        (
            {"critical": {"pool": "solo", "time_limit": 60}},
            "time_limit is 60 and pool is solo: tasks run in the main process",
        ),
        ({"critical": {"pool": "solo", "soft_time_limit": 9}}, "soft_time_limit is 9 and pool is solo: tasks run"),
        (
            {"critical": {"pool": "solo", "max_tasks_per_child": 9}},
            "max_tasks_per_child is 9 and pool is solo: all tasks",
        ),
        ({"critical": {"pool": "solo", "max_memory_per_child": 0}}, "max_memory_per_child is 0 and pool is solo: all"),
        ({"critical": {"profile": "fast"}}, "celery_queues.critical.profile is 'fast'; it must be critical, default"),
        ({"critical": {"heartbeat": 1}}, "celery_queues.critical.heartbeat is 1; it must be true or false"),
        (
            {"critical": {"cpu_weight": 0}},
            "celery_queues.critical.cpu_weight is 0; it must be a whole number from 1 to",
        ),
        ({"critical": {"nice": 5}}, "celery_queues.critical.nice is unknown."),
        ({"critical": {}, "Bulk mail": {}}, "The queue name 'Bulk mail'"),
        ({"critical": {}, "a;b": {}}, "The queue name 'a;b'"),
        ({"critical": {}, "unacked": {}}, "The queue name 'unacked'"),
    ],
)
def test_a_wrong_table_is_refused_with_the_variable_and_the_remedy(queues, said):
    assert any(said in problem for problem in problems(queues)), problems(queues)


def test_a_route_or_default_to_a_missing_queue_is_refused():
    assert (
        "celery_task_routes['x'] leads to 'slow', which is not in celery_queues (critical, bulk)"
        in problems(routes={"x": "slow"})[0]
    )
    assert "celery_default_queue is 'default'" in problems(default="default")[0]
    assert "celery_task_routes is ['x']" in problems(routes=["x"])[0]


def test_a_queue_has_the_profile_of_its_name_or_the_one_that_it_names():
    table = celery_queue_table({"bulk": {}, "mail": {}, "reports": {"profile": "bulk", "cpu_weight": 5}})
    assert [options["profile"] for options in table.values()] == ["bulk", "default", "bulk"]
    assert [options["cpu_weight"] for options in table.values()] == [20, 100, 5]


UNIT = (ROOT / "systemd/worker@.service.j2").read_text()


def effects(option, value):
    """What a queue's option changes: the worker's arguments, Celery's settings, the unit, the alerts."""
    table = celery_queue_table({"q": {option: value}})
    unit = [table["q"][name] for name in sorted(set(re.findall(r"\boptions\.(\w+)", UNIT)))]
    alerts = alert_rules(table, visibility_timeout=1100, connections=100)
    return json.dumps([table["q"]["arguments"], celery_settings(table, {}, "q", "redis://"), unit, alerts])


@pytest.mark.parametrize("option", options_of_a_queue())
def test_every_option_has_an_effect(option):
    schema = options_of_a_queue()[option]
    values = schema.get("enum") or [schema.get("minimum", 0) + more for more in (0, 1, 1000)]
    values = [True, False] if schema.get("type") == "boolean" else values
    assert len({effects(option, value) for value in values}) > 1


def test_profiles_keep_what_the_contract_rests_on():
    """Solo and threads enforce no time limit; more than one prefetched message holds all queues' redelivery up."""
    for options in celery_queue_table({name: {} for name in PROFILES}).values():
        assert (options["pool"], options["prefetch_multiplier"]) == ("prefork", 1)
    assert all(set(options) <= set(options_of_a_queue()) for options in PROFILES.values())
    assert list(PROFILES) == options_of_a_queue()["profile"]["enum"]


@pytest.mark.parametrize("limit, soft, stop", [(300, 240, 335), (10, 8, 45), (2, 1, 37)])
def test_limits_follow_from_the_time_limit(limit, soft, stop):
    options = celery_queue_table({"a": {"time_limit": limit}})["a"]
    assert (options["soft_time_limit"], options["timeout_stop_sec"]) == (soft, stop)


@pytest.mark.parametrize("pool", WITHOUT_LIMITS)
def test_without_time_limits_a_task_may_take_what_the_stop_of_the_worker_leaves(pool):
    options = celery_queue_table({"a": {"pool": pool, "timeout_stop_sec": 635}})["a"]
    assert (options["time_limit"], options["soft_time_limit"]) == (600, 480)
    assert celery_queue_table({"a": {"pool": pool}})["a"]["timeout_stop_sec"] == 335
    assert celery_queue_table({"a": {"pool": pool, "timeout_stop_sec": 5}})["a"]["time_limit"] == 2
    assert "--time-limit=600" in options["arguments"], "the watch knows it"


def test_solo_may_say_that_it_runs_one_task():
    assert celery_queue_problems({"a": {"pool": "solo", "concurrency": 1}}, {}, "a") == []
    assert celery_queue_table({"a": {"pool": "solo", "profile": "bulk"}})["a"]["concurrency"] == 1


@pytest.mark.parametrize(
    "entry, tasks", [({}, 2), ({"concurrency": "auto"}, 3), ({"concurrency": "auto*4"}, 12), ({"pool": "solo"}, 1)]
)
def test_number_of_tasks_follows_from_the_processors(entry, tasks):
    options = celery_queue_table({"a": entry})["a"]
    assert options["tasks"] + options["tasks_per_processor"] * 3 == tasks


def test_arguments_say_what_the_table_says():
    arguments = celery_queue_table(QUEUES)["bulk"]["arguments"]
    assert {
        "--queues=bulk",
        "--time-limit=900",
        "--soft-time-limit=720",
        "--without-heartbeat",
        "--task-events",
    } <= set(arguments)
    assert not any(a.startswith("--concurrency") for a in arguments), "auto leaves it to the host"
    threads = celery_queue_table({"t": {"pool": "threads", "heartbeat": True, "task_events": False}})["t"]["arguments"]
    assert not any(option in a for a in threads for option in ("soft-time-limit", "per-child")), (
        "threads do not know them"
    )
    assert "--time-limit=300" in threads, "the watch does"
    gevent = celery_queue_table({"g": {"pool": "gevent", "concurrency": "auto*4", "time_limit": 50}})["g"]["arguments"]
    assert {"--pool=gevent", "--concurrency=auto*4", "--time-limit=50", "--soft-time-limit=40"} <= set(gevent)
    assert not any("per-child" in a for a in gevent)
    solo = celery_queue_table({"s": {"pool": "solo"}})["s"]["arguments"]
    assert not any(option in a for a in solo for option in ("soft-time-limit", "per-child", "concurrency"))
    assert not {"--without-heartbeat", "--task-events"} & set(threads)
