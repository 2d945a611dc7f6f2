"""Replies to the remote control command `heartbeat` with a complete heartbeat: running tasks and load.

Workers send none by themselves (`--without-heartbeat`), because that would block on a broker that hangs. The command
arrives through the broker, so only when it answers. Flower sends it every 5 s.
"""

from __future__ import annotations

from typing import Any

from celery.utils.sysinfo import load_average
from celery.worker import state
from celery.worker.control import control_command

FREQUENCY = 10.0  # seconds; a monitor that receives nothing for twice as long shows the worker as offline


def heartbeat(panel: Any) -> None:
    """Tell worker(s) to send a heartbeat now."""
    consumer = panel.consumer
    if consumer.event_dispatcher:
        send(consumer.event_dispatcher)
    else:  # a worker has none where its queue says task_events: false
        with consumer.app.events.default_dispatcher(hostname=consumer.hostname) as dispatcher:
            send(dispatcher)


def send(dispatcher: Any) -> None:
    """Send a heartbeat event with the fields of Celery's own."""
    dispatcher.send(
        "worker-heartbeat",
        freq=FREQUENCY,
        active=len(state.active_requests),
        processed=state.all_total_count[0],
        loadavg=load_average(),
        **state.SOFTWARE_INFO,
    )


def install() -> None:
    """Replace Celery's command, whose heartbeat has neither tasks nor load."""
    control_command(name="heartbeat")(heartbeat)
