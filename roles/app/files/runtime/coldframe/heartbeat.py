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
    if not (dispatcher := panel.consumer.event_dispatcher):
        return
    if not dispatcher.enabled:  # a worker whose queue has no events of tasks; of these it sends none then either
        dispatcher.enable()
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
