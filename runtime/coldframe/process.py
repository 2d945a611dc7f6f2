"""Runs the `celery` command and tells systemd what it does (sd_notify(3)).

A worker is ready when it consumes from the broker; Beat, when it ticks or stands by (coldframe.beat.lease).
A worker's status says why it cannot use the broker, and names the tasks that it runs, while it drains too.
"""

from __future__ import annotations

# ruff: noqa: E402
import logging
import sys
import threading
import time
from contextlib import suppress
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
from coldframe.worker import heartbeat, limits, pool, processors, transport, unknown
from coldframe.worker.consumer import Consumer
from coldframe.worker.stop import Rest
from coldframe.worker.watch import Watch

STATUS_INTERVAL = 1.0  # seconds between two looks at the running tasks
STATUS_TASKS = 10  # tasks that the status names, at most
logger = logging.getLogger(__name__)


def notify(message: str) -> None:
    """Send a message to systemd; with READY the start has ended."""
    if message.startswith("READY=1"):
        start.end()
    starting.notify(message)


class Worker:
    """What a worker is at: consuming or draining, and which tasks it runs."""

    phase = "consuming"
    ready = False
    unwatched = ""  # why the watch cannot look at the worker
    trouble = ""  # why the broker cannot be used now

    def status(self) -> str:
        """One line for systemd."""
        phase = f"waiting for the broker: {self.trouble}" if self.trouble and self.phase == "consuming" else self.phase
        tasks = sorted(f"{request.name}[{request.id}]" for request in pool.running())
        more = f" and {len(tasks) - STATUS_TASKS} more" if len(tasks) > STATUS_TASKS else ""
        watched = f", not watched: {self.unwatched}" if self.unwatched else ""
        running = ", running " + ", ".join(tasks[:STATUS_TASKS]) + more if tasks else ""
        return phase + watched + running + unknown.status()

    def wait(self, trouble: str) -> None:
        """Note why the broker cannot be used, or with an empty text that it can, and tell systemd so."""
        self.trouble = " ".join(trouble.split())[:200]
        with suppress(OSError):
            notify(f"STATUS={self.status()}")

    def report(self, watch: Watch) -> None:
        """Keep systemd's status line and its watchdog current, for as long as the process lives."""
        while True:
            try:
                notify(f"{self.watchdog(watch)}\nSTATUS={self.status()}")
            except Exception:
                logger.exception("The worker's state was not reported.")
            time.sleep(STATUS_INTERVAL)

    def watchdog(self, watch: Watch) -> str:
        """Feed the watchdog, or wake it: not while the worker drains, for it has a time for that.

        A watch that fails tells nothing of the worker, so it wakes nobody. But a worker is not ready before it can be watched:
        a release whose Celery the watch does not know does not start.
        """
        if self.phase == "draining":
            return "WATCHDOG=1"
        try:
            fault = watch.fault()
        except Exception as error:
            if not self.unwatched:
                logger.exception("The watch over this worker fails: it would not be restarted if it hung.")
            self.unwatched = f"{type(error).__name__}: {error}"
            return "WATCHDOG=1"
        self.unwatched = ""
        if fault:
            logger.critical("This worker is to be restarted: %s, and the broker answers.", fault)
            return "WATCHDOG=trigger"
        ready, self.ready = self.ready, True
        return "WATCHDOG=1" if ready else "READY=1\nWATCHDOG=1"


worker = Worker()


@celeryd_init.connect
def on_celeryd_init(instance: Any, **_: object) -> None:
    """Start no worker that would keep another contract with the broker than the rest of the deployment."""
    settings_check.demand(instance.app)
    instance.app.conf.worker_consumer = "coldframe.worker.consumer:Consumer"
    # Answers to who asks workers are in the form that all of them read, whatever tasks are written in: Flower knows no other.
    instance.app.control.mailbox.serializer = "json"


@worker_ready.connect
def on_worker_ready(sender: Any, **_: object) -> None:
    """See to the stop and the life of a worker that consumes; it is ready when it can be watched."""
    rest = Rest(sender.controller)
    seams.put(state, "maybe_shutdown", rest)
    watch = Watch(sender.controller, rest)
    threading.Thread(target=worker.report, args=(watch,), name="status", daemon=True).start()
    threading.Thread(target=limits.keep_limits, args=(sender.controller,), name="limits", daemon=True).start()


@worker_shutting_down.connect
def on_worker_shutting_down(**_: object) -> None:
    """Report a worker that finishes what it has and takes no more."""
    worker.phase = "draining"
    notify(f"STOPPING=1\nSTATUS={worker.status()}")


if __name__ == "__main__":
    Consumer.report = staticmethod(worker.wait)
    amqp.install()
    canary.install()
    heartbeat.install()
    lease.install(notify)
    limits.install()
    transport.install()
    unknown.install()
    sys.argv = processors.arguments(sys.argv)
    main()
