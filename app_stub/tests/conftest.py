"""A real PostgreSQL, a real Redis and the contract's environment, before Django loads.

PostgreSQL comes from the PG* variables that `pg_virtualenv` sets; Redis is a private one.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import django
import pytest
from environment import COMMAND, Broker, write_environment

if TYPE_CHECKING:  # what belongs to Django can be imported only once it is set up
    from celery import Celery
    from django.test import Client

BROKER = pytest.StashKey[Broker]()


def pytest_configure(config: pytest.Config) -> None:
    if "PGHOST" not in os.environ:
        pytest.exit(f"No database to test with. Type: {COMMAND}", returncode=2)
    folder = Path(tempfile.mkdtemp(prefix="shop-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    config.stash[BROKER] = broker = Broker(folder)
    config.add_cleanup(broker.stop)
    broker.start()
    write_environment(folder, broker)
    django.setup()


@pytest.fixture
def broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The private Redis, empty, and running and empty again after a test that stopped it."""
    from orders import outbox

    outbox._quiet_until = 0.0
    broker = pytestconfig.stash[BROKER]
    broker.redis.flushall()
    yield broker
    broker.start()
    broker.redis.flushall()  # for the worker that another module starts


# The next two are for the fixtures of celery.contrib.pytest, which start a worker in a thread.
@pytest.fixture
def celery_app(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> "Celery":
    """The application's own, in place of one without its settings."""
    from shop.celery import app

    # A worker waits for a message up to a second at a time; its socket must wait longer.
    monkeypatch.setitem(app.conf.broker_transport_options, "socket_timeout", 5)
    return app


@pytest.fixture(scope="session")
def celery_worker_parameters() -> dict:
    return {"perform_ping_check": False, "shutdown_timeout": 20}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are run where they are sent. What that hides is in docs/patterns.md."""
    from shop.celery import app

    for name in ("task_always_eager", "task_eager_propagates"):
        monkeypatch.setitem(app.conf, name, True)


@pytest.fixture
def client() -> "Client":
    """As requests come from the proxy: over TLS."""
    from django.test import Client

    return Client(headers={"X-Forwarded-Proto": "https"})


@pytest.fixture
def no_database() -> Callable[[], AbstractContextManager[None]]:
    """While this is held, the database refuses connections."""
    from django.db import connection

    @contextmanager
    def refuse() -> Iterator[None]:
        port = connection.settings_dict["PORT"]
        connection.close()
        connection.settings_dict["PORT"] = 1
        try:
            yield
        finally:
            connection.settings_dict["PORT"] = port
            connection.close()

    return refuse
