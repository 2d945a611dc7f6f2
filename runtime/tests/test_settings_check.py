"""What is said about an application whose Celery is not set as the deployment has set it."""

import importlib
import json
import socket
import sys
from types import ModuleType
from types import SimpleNamespace as Thing
from unittest.mock import patch

import pytest
from coldframe import settings_check

GIVEN = {
    "broker_url": "redis://broker/0",
    "broker_transport_options": {"visibility_timeout": 500},
    "task_acks_late": True,
    "task_queues": {"mail": {}, "default": {}},
    "task_default_queue": "default",
    "accept_content": ["json"],
    "task_serializer": "json",
    "coldframe": {
        "routes": {},
        "limits": {"default": {"time_limit": 300}, "mail": {"time_limit": 60}},
        "scheduler": "d:Scheduler",
    },
}


class Conf(dict):
    """Celery's configuration."""

    __getattr__ = dict.get


@pytest.fixture
def say(tmp_path, monkeypatch):
    """Say what is wrong with other settings, of which some stand in Django's."""
    file = tmp_path / "celery.json"
    file.write_text(json.dumps(GIVEN))
    monkeypatch.setenv("CELERY_SETTINGS_FILE", str(file))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site.settings")

    def run(check, tasks=None, routed=None, django=None, **settings):
        conf = Conf(GIVEN | {"beat_scheduler": "celery.beat:PersistentScheduler"} | settings)
        route = (routed or {}).get
        router = Thing(route=lambda options, name, *_, **__: {"queue": route(name)})
        app = Thing(conf=conf, tasks=tasks or {}, amqp=Thing(router=router), namespace="CELERY")
        module = ModuleType("django.conf")
        module.settings = Thing(**(django or {}))
        with patch.dict(sys.modules, {"django": ModuleType("django"), "django.conf": module}):
            return list(check(app))

    return run


def test_the_same_settings_in_other_forms_are_the_same(say):
    assert say(settings_check.differences) == []
    queues = [Thing(name="mail"), Thing(name="default")]
    more = {"visibility_timeout": 500, "max_connections": 20}
    own = {"accept_content": ("json", "own_json"), "task_serializer": "own_json"}
    assert say(settings_check.differences, task_queues=queues, broker_transport_options=more, **own) == []


def test_a_setting_that_differs_is_named_with_both_values_and_their_place(say):
    said = say(
        settings_check.differences,
        broker_url="redis://me:sec/ret@1@laptop:6379/0",  # pragma: allowlist secret
        task_acks_late=False,
        django={"CELERY_BROKER_URL": "x"},
    )
    assert said == [
        "broker_url is 'redis://***@laptop:6379/0' (CELERY_BROKER_URL in site.settings), and the deployment gives 'redis://broker/0'.",
        "task_acks_late is False (Celery's default or the application's code), and the deployment gives True.",
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"accept_content": ["json", "pickle"]},
        {"accept_content": ["own_json"]},
        {"task_serializer": "yaml"},
        {"task_queues": {"default": {}}},
        {"broker_transport_options": {"visibility_timeout": 3600}},
        {"broker_transport_options": None},
    ],
)
def test_what_breaks_the_contract_differs(say, settings):
    assert len(say(settings_check.differences, **settings)) == 1


def test_a_process_with_other_settings_ends_and_says_what_to_write(say):
    with pytest.raises(SystemExit, match=r"task_acks_late is None(.|\n)*globals\(\)\.update"):
        say(lambda app: [settings_check.require(app)], task_acks_late=None)


@pytest.mark.parametrize(
    ("own", "remedy"), [(["celery"], r"globals\(\)\.update"), ([], "have no effect on this Celery")]
)
def test_what_to_do_follows_from_who_decides(say, tmp_path, monkeypatch, own, remedy):
    (tmp_path / "overlay.json").write_text(json.dumps({"own": own}))
    monkeypatch.setenv("OVERLAY_FILE", str(tmp_path / "overlay.json"))
    with pytest.raises(SystemExit, match=remedy):
        say(lambda app: [settings_check.require(app)], task_acks_late=None)


def test_a_task_for_a_queue_that_is_not_there_is_named(say):
    tasks = {"celery.chord": Thing(queue="x"), "a.b": Thing(), "a.c": Thing(queue="emails"), "a.d": Thing()}
    said = say(settings_check.tasks, tasks, routed={"a.b": Thing(name="mail"), "a.d": Thing(name="slow")})
    assert len(said) == 2
    assert "the task a.c to the queue 'emails', which is not in celery_queues (default, mail)" in said[0]
    assert "write celery_task_routes: {a.d: default}" in said[1]


def test_a_task_that_asks_for_more_time_than_its_queue_allows_is_named(say):
    tasks = {"a.b": Thing(time_limit=90, queue=None), "a.c": Thing(time_limit=90), "a.d": Thing(soft_time_limit=60)}
    mail = Thing(name="mail")
    said = say(settings_check.tasks, tasks, routed={"a.b": mail, "a.d": mail})
    assert len(said) == 1 and "a.b has time_limit=90, and its queue mail ends each task after 60 s" in said[0]
    assert "Write celery_queues: {mail: {time_limit: 90}}" in said[0]


def test_limits_for_all_tasks_may_be_shorter_and_not_longer(say):
    assert say(settings_check.limits, task_time_limit=300, task_soft_time_limit=60) == []
    said = say(settings_check.limits, task_time_limit=600, django={"CELERY_TASK_TIME_LIMIT": 600})
    assert "task_time_limit is 600 (CELERY_TASK_TIME_LIMIT in site.settings)" in said[0]
    assert "celery_queues: {default: {time_limit: 600}}" in said[0]


def test_format_that_runs_code_is_refused_for_a_single_task_too(say):
    tasks = {"a.b": Thing(serializer="pickle"), "a.c": Thing(serializer="own_json"), "a.d": Thing(serializer="json")}
    (said,) = say(settings_check.tasks, tasks, routed=dict.fromkeys(tasks, Thing(name="mail")))
    assert "The task a.b has serializer='pickle', and no worker accepts a format that runs code" in said


def test_another_scheduler_than_beats_unit_runs_is_named(say):
    assert say(settings_check.scheduler) == say(settings_check.scheduler, beat_scheduler="d:Scheduler") == []
    assert say(settings_check.scheduler, beat_scheduler="d.Scheduler") == [], "with a point, as Celery takes it too"
    assert "Write celery_beat_scheduler: n:Own" in say(settings_check.scheduler, beat_scheduler="n:Own")[0]


@pytest.mark.parametrize("address", ["rpc://", "rpc", "celery.backends.rpc:RPCBackend"])
def test_results_that_only_the_sender_could_read_are_refused(say, address):
    (problem,) = say(settings_check.results, result_backend=address)
    assert f"CELERY_RESULT_BACKEND is {address!r}" in problem and 'CELERY_RESULT_BACKEND: "django-db"' in problem


def test_names_that_the_application_does_not_answer_to_are_told(monkeypatch):
    importlib.import_module("django.http.request")  # while the settings are Django's own
    monkeypatch.setenv("ALLOWED_HOSTS", "shop.example.com,10.0.0.1")
    with patch("django.conf.settings", Thing(ALLOWED_HOSTS=["localhost", "10.0.0.1"])):
        (said,) = settings_check.hosts()
    assert "requests come for shop.example.com. Take hosts out of app_own_settings, or write ALLOWED_HOSTS = " in said
    for allowed in (["*"], [".example.com", "10.0.0.1"]):
        with patch("django.conf.settings", Thing(ALLOWED_HOSTS=allowed)):
            assert not list(settings_check.hosts())


@pytest.mark.parametrize("hides", [True, False])
def test_a_cache_that_hides_what_fails_is_asked(hides):
    class Cache:
        _ignore_exceptions = hides

        def get(self, key):
            if not self._ignore_exceptions:
                raise ConnectionError(key)

    cache = Cache()
    with pytest.raises(ConnectionError):
        settings_check.read(cache)
    assert cache._ignore_exceptions is hides
    settings_check.read(Thing(get=str))


def test_the_address_of_a_cache_is_asked(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        closed = server.getsockname()[1]
        for address in (f"redis://u:p@127.0.0.1:{closed}/0", f"127.0.0.1:{closed}", f"unix://{tmp_path}/absent?db=0"):
            with pytest.raises(OSError):
                settings_check.connect(address)
        server.listen()
        settings_check.connect(f"redis://127.0.0.1:{closed}/1")
    for name in ("", "unique-snowflake", "cache_table", "/srv/cache"):  # of caches that need no network
        settings_check.connect(name)
