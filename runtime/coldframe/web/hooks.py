"""Hooks of Gunicorn (gunicorn.conf.py of a release): load the application, and report to systemd when that is done.

Django imports the views, and Celery the broker's transport, at their first use. In each new process of a release, a
request that sends a task waited 150 ms for that, on a busy host a second.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import Any

from celery.app.utils import find_app
from django.urls import get_resolver

import coldframe.credentials  # noqa: F401
from coldframe import overlay, settings_check, starting, tracing, versions
from coldframe.sending import amqp, control


def install() -> None:
    """Extend Celery, before the application is imported. Exits if a version was not tried."""
    versions.require()
    tracing.defer()
    amqp.install()
    control.install()


def report() -> None:
    """Begin to report to Sentry and by OpenTelemetry, in a worker: it has loaded the application, or was forked with it."""
    tracing.start()


def load(celery_app: str) -> None:
    """Import views, tasks and transport. Opens no connection, because processes may be forked from this one.

    Raises what the application raises when it is imported.
    """
    overlay.load()
    app = find_app(celery_app)
    settings_check.require(app)
    app.loader.import_default_modules()
    app.finalize()
    app.connection_for_write().get_transport_cls()
    _ = get_resolver().url_patterns, app.amqp, app.backend, app.events.Dispatcher


class Sockets:
    """The variables with which systemd passes sockets (sd_listen_fds(3)). Gunicorn reads them when the application is loaded.

    Until then they are hidden: Twisted, which Daphne imports, removes them.
    """

    NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

    def __init__(self) -> None:
        """Hide them."""
        self.values = {name: os.environ.pop(name) for name in self.NAMES if name in os.environ}

    def give_back(self) -> None:
        """Set them again."""
        os.environ.update(self.values)


class Workers:
    """Gunicorn's workers without preload_app: the unit is ready when each of them has loaded the application.

    Gunicorn would report that earlier. So NOTIFY_SOCKET is hidden from it, and the last worker to finish reports.
    """

    def __init__(self, count: int) -> None:
        """Create the pipe that the workers share. Each of them writes one byte to it."""
        self.count = count
        self.address = os.environ.pop("NOTIFY_SOCKET", "")
        self.loaded, self.loads = os.pipe()

    def begin(self, worker: Any) -> None:
        """Start to load, in a worker. Gunicorn kills one that sends no heartbeat within its `timeout`."""
        os.environ["NOTIFY_SOCKET"] = self.address
        self.start = starting.of_unit(worker.notify)
        self.start.begin()

    def end(self) -> None:
        """Finish loading, in a worker."""
        self.start.end()
        os.write(self.loads, b".")
        if self.so_far() == self.count:
            starting.notify(f"READY=1\nSTATUS=Gunicorn: {self.count} workers have loaded the application")

    def so_far(self) -> int:
        """Return how many workers have loaded the application."""
        loaded: int = struct.unpack("i", fcntl.ioctl(self.loaded, termios.FIONREAD, b"\0" * 4))[0]
        return loaded
