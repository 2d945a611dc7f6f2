"""Loads in the web server's first process what would else be loaded by the first requests.

Django imports the views, and Celery the broker's transport, when they are first used: in each new
process of a release, a request that sends a task waited 150 ms for that, on a busy host a second.
The check of countdowns is put before Celery here too.
"""

from __future__ import annotations

from celery.app.utils import find_app
from django.urls import get_resolver

import coldframe.credentials  # noqa: F401
from coldframe import countdown


def load(celery_app: str) -> None:
    """Import views, tasks and transport; open no connection, for the processes are forked from this one.

    Raises what the application raises when it is imported.
    """
    countdown.install()
    app = find_app(celery_app)
    app.loader.import_default_modules()
    app.finalize()
    app.connection_for_write().get_transport_cls()
    _ = get_resolver().url_patterns, app.amqp, app.backend, app.events.Dispatcher
