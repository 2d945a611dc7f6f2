"""Runs the `celery` command, for a worker or for Beat, with what this package changes in it.

    python -m coldframe.process --app=APP worker|beat [OPTION...]

A worker is ready when it consumes from the broker; Beat, when it ticks or stands by (coldframe.beat.lease).
"""

from __future__ import annotations

# ruff: noqa: E402
import sys
import threading
from typing import Any

from coldframe import starting

start = starting.of_unit()
if __name__ == "__main__":
    start.begin()  # before the imports that take a second of the processor, on a busy host many

from celery.__main__ import main
from celery.signals import celeryd_init, worker_ready, worker_shutting_down
from celery.worker import state

from coldframe import canary, seams, settings_check
from coldframe.beat import lease
from coldframe.sending import amqp
from coldframe.worker import consumer, heartbeat, limits, processors, transport, unknown
from coldframe.worker.status import Status
from coldframe.worker.stop import Rest
from coldframe.worker.watch import Watch


def notify(message: str) -> None:
    """Send a message to systemd; with READY the start has ended."""
    if message.startswith("READY=1"):
        start.end()
    starting.notify(message)


status = Status(notify)


@celeryd_init.connect
def on_celeryd_init(instance: Any, **_: object) -> None:
    """Start no worker that would keep another contract with the broker than the rest of the deployment."""
    settings_check.demand(instance.app)
    consumer.install(instance.app, status.wait)
    # Answers to remote control are written in the form that all of its users read, whatever tasks are written in: Flower
    # reads no other.
    instance.app.control.mailbox.serializer = "json"


@worker_ready.connect
def on_worker_ready(sender: Any, **_: object) -> None:
    """See to the stop and the life of a worker that consumes; it is ready when it can be watched.

    Celery logs an error that is raised here. The worker is never ready then, so that its unit does not start.
    """
    seams.demand(sender, consumer.Consumer)
    seams.demand(sender.connection.transport, transport.Transport)
    limits.demand(sender.pool)
    rest = Rest(sender.controller)
    seams.put(state, "maybe_shutdown", rest)
    watch = Watch(sender.controller, rest)
    threading.Thread(target=status.report, args=(watch,), name="status", daemon=True).start()
    threading.Thread(target=limits.keep_limits, args=(sender.controller,), name="limits", daemon=True).start()


@worker_shutting_down.connect
def on_worker_shutting_down(**_: object) -> None:
    """Report a worker that finishes what it has and takes no more."""
    status.drain()


if __name__ == "__main__":
    amqp.install()
    canary.install()
    heartbeat.install()
    lease.install(notify)
    limits.install()
    transport.install()
    unknown.install()
    sys.argv = processors.arguments(sys.argv)
    main()
