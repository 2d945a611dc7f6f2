"""Answers who asks a worker for a heartbeat with all that a heartbeat tells: its tasks and its host's load.

Workers send none by themselves (`--without-heartbeat`): a worker would wait for a broker that hangs. The question comes
through the broker, so it comes only from one that answers. Flower asks every 5 s.
"""

from __future__ import annotations

from typing import Any

from celery.utils.sysinfo import load_average
from celery.worker import state
from celery.worker.control import control_command

FREQUENCY = 10.0  # seconds; who hears nothing for twice as long takes the worker for offline


def heartbeat(panel: Any) -> None:
    """Tell worker(s) to send a heartbeat now."""
    consumer = panel.consumer
    if consumer.event_dispatcher:
        send(consumer.event_dispatcher)
    else:  # a worker has none where its queue says task_events: false
        with consumer.app.events.default_dispatcher(hostname=consumer.hostname) as dispatcher:
            send(dispatcher)


def send(dispatcher: Any) -> None:
    """Send what Celery's own heartbeats hold."""
    dispatcher.send(
        "worker-heartbeat",
        freq=FREQUENCY,
        active=len(state.active_requests),
        processed=state.all_total_count[0],
        loadavg=load_average(),
        **state.SOFTWARE_INFO,
    )


def install() -> None:
    """Put this in the place of Celery's own command, which tells neither of tasks nor of load."""
    control_command(name="heartbeat")(heartbeat)
