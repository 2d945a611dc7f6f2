"""The queue table: what is refused, and what follows from it."""

import pytest
from contract import celery_problems, celery_queue_table, celery_settings, celery_web_settings

QUEUES = {"critical": {}, "bulk": {"concurrency": "auto", "nice": 19, "time_limit": 900, "soft_time_limit": 800}}


def problems(queues=None, routes=None, default="critical"):
    return celery_problems(QUEUES if queues is None else queues, routes or {}, default)


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
        (
            {"critical": {"pool": "gevent"}},
            "celery_queues.critical.pool is 'gevent'; it must be prefork, threads or solo",
        ),
        ({"critical": {"nice": 20}}, "celery_queues.critical.nice is 20; it must be a whole number from -20 to 19"),
        (
            {"critical": {"soft_time_limit": 300}},
            "soft_time_limit is 300 and time_limit is 300; the soft limit must be",
        ),
        ({"critical": {}, "Bulk mail": {}}, "The queue name 'Bulk mail'"),
        ({"critical": {}, "a;b": {}}, "The queue name 'a;b'"),
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


def test_stop_time_leaves_room_for_the_longest_task():
    table = celery_queue_table(QUEUES)
    assert all(options["timeout_stop_sec"] > options["time_limit"] for options in table.values())


def test_arguments_say_what_the_table_says():
    arguments = celery_queue_table(QUEUES)["bulk"]["arguments"]
    assert "--queues=bulk" in arguments and "--time-limit=900" in arguments
    assert not any(a.startswith("--concurrency") for a in arguments), "auto leaves it to the host"
    threads = celery_queue_table({"t": {"pool": "threads"}})["t"]["arguments"]
    assert not any("time-limit" in a for a in threads), "only prefork enforces limits"


def test_a_task_is_not_redelivered_while_it_may_run():
    settings = celery_settings(QUEUES, {"a": "bulk"}, "critical", "redis+socket:///s")
    assert settings["broker_transport_options"]["visibility_timeout"] > 900
    assert settings["task_routes"] == {"a": {"queue": "bulk"}}
    assert settings["accept_content"] == ["json"] and settings["task_acks_late"] is True


def test_web_waits_less_and_agrees_on_redelivery():
    settings = celery_settings(QUEUES, {}, "critical", "redis+socket:///s")
    web = celery_web_settings(settings)
    assert web["broker_transport_options"]["socket_timeout"] < settings["broker_transport_options"]["socket_timeout"]
    assert (
        web["broker_transport_options"]["visibility_timeout"]
        == settings["broker_transport_options"]["visibility_timeout"]
    )
