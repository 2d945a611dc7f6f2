"""Runs the `celery` command for a worker or for Beat, extended by this package.

    python -m coldframe.process --app=APP worker|beat [OPTION...]

A worker is ready when it consumes from the broker; Beat, when it ticks or stands by (coldframe.beat.lease).
"""

from __future__ import annotations

# ruff: noqa: E402
import logging
import sys
import threading
from typing import Any

from coldframe import starting, versions

start = starting.of_unit()
if __name__ == "__main__":
    versions.require()
    start.begin()  # before the imports that take a second of the processor, on a busy host many
    if "--pool=gevent" in sys.argv:  # as the first of what has sockets and threads; Celery would do so too late
        from gevent import monkey

        monkey.patch_all()

from celery.__main__ import main
from celery.app import trace
from celery.app.defaults import DEFAULT_PROCESS_LOG_FMT, DEFAULT_TASK_LOG_FMT
from celery.app.log import TaskFormatter
from celery.concurrency.prefork import TaskPool
from celery.signals import (
    after_setup_logger,
    after_setup_task_logger,
    beat_init,
    celeryd_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutting_down,
)
from celery.utils.log import get_multiprocessing_logger
from celery.worker import state
from celery.worker.consumer import consumer as celery_consumer

from coldframe import overlay, probe, seams, settings_check, tracing
from coldframe.beat import lease
from coldframe.logs import ids, journal
from coldframe.sending import amqp
from coldframe.worker import consumer, heartbeat, limits, processors, transport, unknown
from coldframe.worker import runs as counting
from coldframe.worker.status import Status
from coldframe.worker.stop import Rest
from coldframe.worker.watch import Watch


def notify(message: str) -> None:
    """Send a message to systemd. READY ends the start."""
    if message.startswith("READY=1"):
        start.end()
    starting.notify(message)


status = Status(notify)


def wait(trouble: str) -> None:
    """Report why the broker cannot be used; an empty text when it can. A start that waits for it gets no more time."""
    if trouble:
        start.end()
    status.wait(trouble)


@after_setup_logger.connect
def on_after_setup_logger(logger: logging.Logger, format: str, **_: object) -> None:
    """Send Celery's records to the journal, which has time, process and level as fields. A format of one's own stays."""
    formatter = logging.Formatter() if format == DEFAULT_PROCESS_LOG_FMT else None
    journal.adopt([logger, get_multiprocessing_logger()], formatter)


@after_setup_task_logger.connect
def on_after_setup_task_logger(logger: logging.Logger, format: str, **_: object) -> None:
    """Do the same with what tasks log by `get_task_logger`."""
    formatter = TaskFormatter("%(task_name)s[%(task_id)s]: %(message)s", use_color=False)
    journal.adopt([logger], formatter if format == DEFAULT_TASK_LOG_FMT else None)


@worker_process_init.connect
def on_worker_process_init(**_: object) -> None:
    """Make a process of the pool known to the journal."""
    journal.announce("A process of the pool has started.")
    tracing.start()


@worker_process_shutdown.connect
def on_worker_process_shutdown(**_: object) -> None:
    """Send the spans of a process of the pool that are left. It ends without Python's `atexit`."""
    tracing.stop()


@beat_init.connect
def on_beat_init(**_: object) -> None:
    """Begin to report what Beat does."""
    tracing.start()


@celeryd_init.connect
def on_celeryd_init(instance: Any, **_: object) -> None:
    """Refuse to start a worker whose settings differ from those of the deployment."""
    settings_check.require(instance.app)
    tracing.start(spans=False)  # before the tasks are wrapped, which Sentry's SDK extends
    seams.put(celery_consumer, "build_tracer", trace.build_tracer)
    consumer.install(instance.app, wait)
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
    if isinstance(sender.pool, TaskPool):
        counting.runs.slots = max(1, int(sender.pool.num_processes))
    else:  # tasks run in this process
        tracing.start()
    rest = Rest(sender.controller)
    seams.put(state, "maybe_shutdown", rest)
    watch = Watch(sender.controller, rest)
    threading.Thread(target=status.report, args=(watch,), name="status", daemon=True).start()
    threading.Thread(target=limits.keep_limits, args=(sender.controller,), name="limits", daemon=True).start()
    threading.Thread(target=counting.runs.keep_recording, name="runs", daemon=True).start()


@worker_shutting_down.connect
def on_worker_shutting_down(**_: object) -> None:
    """Report that the worker drains."""
    status.drain()


if __name__ == "__main__":
    tracing.defer()
    amqp.install()
    ids.install()
    probe.install()
    heartbeat.install()
    lease.install(notify)
    limits.install()
    transport.install()
    unknown.install()
    counting.install()
    overlay.load()
    sys.argv = processors.arguments(sys.argv)
    main()
