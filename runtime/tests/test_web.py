"""Gunicorn with the configuration of a release, a Django project and its Celery application."""

import json

import pytest
from conftest import LONGEST, QUEUE
from gunicorns import PROJECT, serving


@pytest.fixture(params=[True, False], ids=["loaded once", "loaded by each worker"])
def ask(request, server, environment, tmp_path):
    """Ask the application of a unit that is ready; return what it answers."""
    server.start()
    server.client.flushall()
    with serving(tmp_path, environment, PROJECT, app_wsgi="site1.wsgi:application", preload=request.param) as process:
        process.ready()
        yield lambda countdown: json.loads(process.get(f"/?countdown={countdown}"))


def test_application_sees_its_clients_and_sends_by_the_rules(ask, server):
    assert ask(1) == {"client": "203.0.113.7"}
    assert server.client.llen(QUEUE) == 1
    assert f"Set longest_countdown of {QUEUE} in celery_queues" in ask(LONGEST + 60)["error"]
    assert server.client.llen(QUEUE) == 1
