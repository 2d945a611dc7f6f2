"""Runs the `celery` command for a worker or for Beat, extended by this package.

    python -m coldframe.process --app=APP worker|beat [OPTION...]

A worker is ready when it consumes from the broker; Beat, when it ticks or stands by (coldframe.beat.lease).
"""

from __future__ import annotations

# ruff: noqa: E402
import sys
import threading
from typing import Any

from coldframe import starting, versions

start = starting.of_unit()
if __name__ == "__main__":
    versions.require()
    start.begin()  # before the imports that take a second of the processor, on a busy host many

from celery.__main__ import main
from celery.signals import celeryd_init, worker_ready, worker_shutting_down
from celery.worker import state

from coldframe import overlay, probe, seams, settings_check
from coldframe.beat import lease
from coldframe.sending import amqp
from coldframe.worker import consumer, heartbeat, limits, processors, transport, unknown
from coldframe.worker.status import Status
from coldframe.worker.stop import Rest
from coldframe.worker.watch import Watch


def notify(message: str) -> None:
    """Send a message to systemd. READY ends the start."""
    if message.startswith("READY=1"):
        start.end()
    starting.notify(message)


status = Status(notify)


@celeryd_init.connect
def on_celeryd_init(instance: Any, **_: object) -> None:
    """Refuse to start a worker whose settings differ from those of the deployment."""
    settings_check.require(instance.app)
    consumer.install(instance.app, status.wait)
    # Replies to remote control are always JSON, whatever the tasks' serializer: Flower accepts nothing else.
    instance.app.control.mailbox.serializer = "json"


@worker_ready.connect
def on_worker_ready(sender: Any, **_: object) -> None:
    """Start to report the worker, and to watch it. It becomes ready with the first report.

    Celery only logs an error that is raised here. The worker does not become ready then, and its unit fails to start.
    """
    seams.require(sender, consumer.Consumer)
    seams.require(sender.connection.transport, transport.Transport)
    limits.require(sender.pool)
    rest = Rest(sender.controller)
    seams.put(state, "maybe_shutdown", rest)
    watch = Watch(sender.controller, rest)
    threading.Thread(target=status.report, args=(watch,), name="status", daemon=True).start()
    threading.Thread(target=limits.keep_limits, args=(sender.controller,), name="limits", daemon=True).start()


@worker_shutting_down.connect
def on_worker_shutting_down(**_: object) -> None:
    """Report that the worker drains."""
    status.drain()


if __name__ == "__main__":
    amqp.install()
    probe.install()
    heartbeat.install()
    lease.install(notify)
    limits.install()
    transport.install()
    unknown.install()
    overlay.load()
    sys.argv = processors.arguments(sys.argv)
    main()
