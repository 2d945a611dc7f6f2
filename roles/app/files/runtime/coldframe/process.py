"""Runs the `celery` command and tells systemd when it does its work (sd_notify(3)).

A worker is ready when it consumes from the broker; Beat, when its scheduler is loaded.
"""

from __future__ import annotations

import os
import socket

from celery.__main__ import main
from celery.signals import beat_init, worker_ready, worker_shutting_down


def notify(message: str) -> None:
    """Send a message to systemd; without systemd there is nobody to tell."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), address)


@worker_ready.connect
def on_worker_ready(**_: object) -> None:
    """Report a worker that consumes."""
    notify("READY=1\nSTATUS=consuming")


@worker_shutting_down.connect
def on_worker_shutting_down(**_: object) -> None:
    """Report a worker that finishes what it has and takes no more."""
    notify("STOPPING=1\nSTATUS=draining")


@beat_init.connect
def on_beat_init(**_: object) -> None:
    """Report Beat."""
    notify("READY=1\nSTATUS=ticking")


if __name__ == "__main__":
    main()
