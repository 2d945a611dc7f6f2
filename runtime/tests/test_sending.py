"""What a process that sends tasks may do, and by which routes it sends them."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from coldframe.sending import amqp, countdown
from conftest import LONGEST, QUEUE


@pytest.fixture
def app(monkeypatch, settings, login, tmp_path):
    """An application that was made when the process was extended."""
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "celery.json"
    file.write_text(json.dumps(settings))
    monkeypatch.setenv("CELERY_SETTINGS_FILE", str(file))
    monkeypatch.setattr(Celery, "amqp_cls", "coldframe.sending.amqp:AMQP")
    monkeypatch.setattr(Celery, "control_cls", "coldframe.sending.control:Control")
    app = Celery("sending", set_as_current=False)
    app.conf.update(settings | {"task_routes": {"project.*": {"queue": "elsewhere"}, "other.*": {"queue": QUEUE}}})
    return app


def test_task_waits_for_no_longer_than_its_queue_allows_where_it_cannot_be_stored(app, server):
    server.client.flushall()
    app.send_task("other.task", countdown=LONGEST - 1)
    for options in ({"countdown": LONGEST + 5}, {"eta": datetime.now(UTC) + timedelta(days=1)}):
        with pytest.raises(ValueError, match=f"Set longest_countdown of {QUEUE} in celery_queues"):
            app.send_task("other.task", **options)
    assert server.client.llen(QUEUE) == 1


def test_retry_is_sent_all_the_same(app, server, caplog):
    server.client.flushall()
    app.send_task("other.task", countdown=LONGEST + 5, retries=1)
    assert server.client.llen(QUEUE) == 1 and "A retry is sent all the same" in caplog.text


def test_eta_without_a_zone_is_in_the_applications():
    soon = datetime.now(UTC) + timedelta(seconds=LONGEST - 5)
    assert countdown.producer("real", "a", {"eta": soon.replace(tzinfo=None).isoformat()}, QUEUE, LONGEST) == "real"
    with pytest.raises(ValueError):
        countdown.producer("real", "a", {"eta": (soon + timedelta(seconds=10)).isoformat()}, QUEUE, LONGEST)


def test_priority_has_no_effect_which_is_said_once_for_each_task(app, server, caplog):
    server.client.flushall()
    amqp.warn_of_priority.cache_clear()
    for number, options in enumerate(({"priority": 0}, {"priority": 9}, {"priority": 3}, {})):
        app.send_task("other.task", (number,), **options)
    app.send_task("other.again", priority=5)
    said = [record.getMessage() for record in caplog.records if "priority" in record.getMessage()]
    assert [text.split()[0] for text in said] == ["other.task", "other.again"] and "celery_task_routes" in said[0]
    messages = [json.loads(message)["headers"]["argsrepr"] for message in server.client.lrange(QUEUE, 0, -1)]
    assert messages[::-1] == ["(0,)", "(1,)", "(2,)", "(3,)", "()"], (
        "all are in one queue, in the order in which they were sent"
    )


def test_routes_of_the_deployment_come_first(app):
    assert app.amqp.router.route({}, "project.routed", (), {})["queue"].name == QUEUE
    assert app.amqp.router.route({}, "other.task", (), {})["queue"].name == QUEUE
    with pytest.raises(Exception, match="elsewhere"):
        app.amqp.router.route({}, "project.else", (), {})


def test_remote_control_is_refused_where_it_is_closed(app):
    assert app.control.ping(timeout=0.1) == []
    app.conf.web_control = False
    with pytest.raises(PermissionError, match=r"\(revoke\) is closed .* redis_web_control is false"):
        app.control.revoke("1")


MANAGE = """
from celery import Celery
from coldframe.sending import amqp, control
app = Celery()
app.conf.update({settings!r})
assert type(app.amqp) is amqp.AMQP and type(app.control) is control.Control
with app.connection_for_read() as connection:
    assert type(connection.transport) is control.Transport
    connection.default_channel.qos.restore_visible(num=None, interval=1)
"""


def test_manage_extends_celery_and_requeues_nothing(server, settings, environment, tmp_path):
    server.client.flushall()
    server.client.zadd("unacked_index", {"lost": 1})
    (tmp_path / "manage.py").write_text(MANAGE.format(settings=settings))
    command = [sys.executable, "-m", "coldframe.manage", "manage.py"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert server.client.zcard("unacked_index") == 1
