"""Lets only one of several Beats tick: it holds a lease in the broker, and the others stand by.

Beat renews the lease before each tick, and checks its age before each message, because the process may have been stopped
in between. A Beat that loses the lease exits at once, without writing its state of the schedule, and systemd starts it
again to stand by. A Beat that stands by has not loaded the schedule. It takes over at the latest TTL seconds after the
holder's last renewal, and at once if the holder shut down, or was the previous process of the same unit: systemd starts
no second process while one is left.

So two Beats never tick in turns. Even if the broker loses the lease in a power cut, the former holder checks it before
its next message, and exits. A task can still be sent twice: when Beat dies between sending it and recording that in the
database, or while the database is away.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import beat
from celery.apps.beat import Beat
from celery.signals import before_task_publish
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from coldframe import credentials, probe, seams, settings_check
from coldframe.delayed.sender import Sender

KEY = "lock:beat"
TTL = 20.0  # seconds from a renewal until another Beat may take over
SENDING = 10.0  # seconds that sending may take: three times the socket_timeout of celery-web.json, and connecting
RENEWAL = 5.0  # seconds between two renewals, at most
PAUSE = 1.0  # seconds between two attempts to take the lease, or to reach Redis
logger = logging.getLogger(__name__)


def owner(folder: str) -> str:
    """Return a name of this unit on this host. It stays the same for processes that systemd starts after a crash.

    A random part identifies the unit: hosts may share a host name and, as copies of one image, the machine id.

    :param folder: the unit's RUNTIME_DIRECTORY, which is its own; an empty text if no process follows.
    """
    if not folder:
        return f"{socket.gethostname()} {uuid4()}"
    file = Path(folder, "owner")
    if not file.exists():
        new = file.with_suffix(".new")
        new.write_text(str(uuid4()))
        new.replace(file)  # atomic
    return f"{socket.gethostname()} {file.read_text()}"


class Lease:
    """The right to tick, which one Beat has at a time."""

    def __init__(self) -> None:
        """Prepare a connection to Redis; nothing is sent yet."""
        self.redis = credentials.locks()
        self.owner = owner(os.environ.get("RUNTIME_DIRECTORY", ""))
        self.lock = Lock(self.redis, KEY, timeout=TTL, thread_local=False)
        self.renewed = 0.0

    def take(self) -> bool:
        """Take the lease if it is free or has expired; return whether it is ours now. Raises RedisError."""
        asked = time.monotonic()
        taken = self.lock.acquire(blocking=False, token=f"{self.owner} {uuid4()}") or self.inherit()
        self.renewed = asked if taken else 0.0
        return taken

    def inherit(self) -> bool:
        """Continue the lease of the previous process of this unit; return whether it is ours now. Raises RedisError."""
        held = self.redis.get(KEY) or b""
        if held.decode().rpartition(" ")[0] != self.owner:
            return False
        self.lock.local.token = held
        try:
            return bool(self.lock.reacquire())
        except LockError:
            return False

    def holder(self) -> str:
        """Return the host name of the Beat that has the lease. Raises RedisError."""
        return (self.redis.get(KEY) or b"nobody").decode().partition(" ")[0]

    def renew(self) -> None:
        """Keep the lease for another TTL. Raises LockError when it is lost, another RedisError when Redis does not answer."""
        asked = time.monotonic()
        self.lock.reacquire()
        self.renewed = asked

    def check(self, sender: str = "", **_: Any) -> None:
        """Exit unless a message that is sent now arrives before the lease expires. Queue probes may be late."""
        if sender != probe.NAME and time.monotonic() - self.renewed > TTL - SENDING:
            self.give_up("it was not renewed in time")

    def give_up(self, why: str) -> None:
        """Exit at once, without sending or writing anything."""
        logger.critical("The lease is lost (%s): another Beat may tick, this one ends.", why)
        os._exit(1)

    def release(self) -> None:
        """Release the lease, if it is ours."""
        if self.renewed:
            with suppress(RedisError):
                self.lock.release()


class Service(beat.Service):
    """Celery's Beat with any scheduler. It ticks while it has the lease, and reports its state to systemd."""

    notify: Callable[[str], None]
    status, detail = "", ""

    def start(self, embedded_process: bool = False) -> None:
        """Stand by, then tick until stopped. Exits if the settings differ from those of the deployment."""
        settings_check.require(self.app)
        self.lease = Lease()
        self.probes = probe.Probes(self.app, self.lease.redis)
        self.delayed = Sender(self.app)
        before_task_publish.connect(self.lease.check)
        try:
            self.stand_by()
            super().start(embedded_process)
        finally:
            self.lease.release()

    def stand_by(self) -> None:
        """Wait for the lease."""
        while True:
            try:
                if self.lease.take():
                    return
                self.tell(f"standby, {self.lease.holder()} is active", "READY=1\n")
            except RedisError as error:
                self.tell(f"waiting for Redis: {error}")
            self.notify("WATCHDOG=1")
            time.sleep(PAUSE)

    @cached_property
    def scheduler(self) -> beat.Scheduler:
        """Return the scheduler, whose ticks go through `turn`."""
        scheduler = self.get_scheduler()
        tick = scheduler.tick
        scheduler.tick = lambda: self.turn(tick)
        return scheduler

    def turn(self, tick: Callable[[], float]) -> float:
        """Tick if the lease is still ours, then send stored tasks and a queue probe that are due.

        Returns the seconds until the next turn.
        """
        self.notify("WATCHDOG=1")
        try:
            self.lease.renew()
        except LockError as error:
            self.lease.give_up(str(error))
        except RedisError as error:
            self.tell(f"waiting for Redis: {error}")
            return PAUSE
        self.tell("ticking", "READY=1\n", self.delayed.status)
        # If Beat stopped between recording a task as sent and sending it, the task would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            wait = min(tick() or 0.0, RENEWAL)
            wait = 0.0 if self.delayed.send_due() else wait
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        return 0.0 if self.probes.send_next() else wait  # one per turn, so that a tick waits for at most one

    def tell(self, status: str, more: str = "", detail: str = "") -> None:
        """Report a new state to systemd and the log.

        :param more: what else to tell systemd.
        :param detail: for systemd alone, because it changes often.
        """
        if status != self.status:
            logger.info("Beat is %s.", status)
        if (status, detail) != (self.status, self.detail):
            self.status, self.detail = status, detail
            self.notify(f"{more}STATUS={status}{f', {detail}' if detail else ''}")

    def sync(self) -> None:
        """Write the state of the schedule, if it is loaded. A Beat that stands by must not load it to stop."""
        if "scheduler" in vars(self):
            super().sync()


def install(notify: Callable[[str], None]) -> None:
    """Make `celery beat` run this service.

    :param notify: sends a message to systemd.
    """
    Service.notify = staticmethod(notify)
    seams.put(Beat, "Service", Service)
