"""Lets one Beat tick, of however many there are: it holds a lease in the broker, and the others stand by.

The lease is renewed before each tick, and its age is looked at before each message, for a process may have been
stopped in between. Who loses it ends at once and is started again to stand by: nothing that it remembers of the
schedule is written. Who stands by has loaded no schedule; it loads one when it takes over, TTL seconds after the
holder's last renewal at the latest, and at once when the holder stopped in order, or was the process before in
the same unit: systemd starts none while one is left.

So two never tick by turns: even when the broker forgets the lease, in a power cut, the first asks before its next
message and ends. A task may still come twice: when Beat dies between sending it and noting so in the database, and
when it dies while the database is away.
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

from coldframe import canary, credentials, seams, settings_check

KEY = "lock:beat"
TTL = 20.0  # seconds from a renewal to another Beat's turn
SENDING = 10.0  # seconds that a message may be on its way: three times celery-web.json's socket_timeout, and connecting
RENEWAL = 5.0  # seconds from one renewal to the next, at most
PAUSE = 1.0  # seconds between two looks at a lease that another one has, or at a Redis that does not answer
logger = logging.getLogger(__name__)


def owner(folder: str) -> str:
    """Name this unit on this host, the same for each process that systemd starts in it after a crash.

    The name that tells is a random one: hosts may have one host name and, as copies of one image, one machine id.

    :param folder: the unit's RUNTIME_DIRECTORY, which no other unit and no other host has; empty: no process follows.
    """
    if not folder:
        return f"{socket.gethostname()} {uuid4()}"
    file = Path(folder, "owner")
    if not file.exists():
        new = file.with_suffix(".new")
        new.write_text(str(uuid4()))
        new.replace(file)  # whole or not at all
    return f"{socket.gethostname()} {file.read_text()}"


class Lease:
    """The right to tick; one Beat has it at a time."""

    def __init__(self) -> None:
        """Know where the lease is kept; nobody is asked yet."""
        self.redis = credentials.locks()
        self.owner = owner(os.environ.get("RUNTIME_DIRECTORY", ""))
        self.lock = Lock(self.redis, KEY, timeout=TTL, thread_local=False)
        self.renewed = 0.0

    def take(self) -> bool:
        """Take the lease if nobody has it, or who is dead; say whether it is ours now. Raises RedisError."""
        asked = time.monotonic()
        taken = self.lock.acquire(blocking=False, token=f"{self.owner} {uuid4()}") or self.inherit()
        self.renewed = asked if taken else 0.0
        return taken

    def inherit(self) -> bool:
        """Go on with the lease of the process before in this unit. Raises RedisError."""
        held = self.redis.get(KEY) or b""
        if held.decode().rpartition(" ")[0] != self.owner:
            return False
        self.lock.local.token = held
        try:
            return bool(self.lock.reacquire())
        except LockError:
            return False

    def holder(self) -> str:
        """Name the host of the Beat that has the lease. Raises RedisError."""
        return (self.redis.get(KEY) or b"nobody").decode().partition(" ")[0]

    def renew(self) -> None:
        """Keep the lease for another TTL. Raises LockError when it is lost, another RedisError when nobody knows."""
        asked = time.monotonic()
        self.lock.reacquire()
        self.renewed = asked

    def check(self, sender: str = "", **_: Any) -> None:
        """End this process, unless what is sent now arrives while the lease lasts, or does no harm later."""
        if sender != canary.NAME and time.monotonic() - self.renewed > TTL - SENDING:
            self.give_up("it was not renewed in time")

    def give_up(self, why: str) -> None:
        """End this process with nothing sent and nothing written from here on, not even at exit."""
        logger.critical("The lease is lost (%s): another Beat may tick, this one ends.", why)
        os._exit(1)

    def release(self) -> None:
        """Give the lease back, if it is ours."""
        if self.renewed:
            with suppress(RedisError):
                self.lock.release()


class Service(beat.Service):
    """Celery's Beat with any scheduler, which ticks while it has the lease, and tells systemd so."""

    notify: Callable[[str], None]
    status = ""

    def start(self, embedded_process: bool = False) -> None:
        """Stand by, then tick until told to stop; only with the deployment's settings."""
        settings_check.demand(self.app)
        self.lease = Lease()
        self.canaries = canary.Canaries(self.app, self.lease.redis)
        before_task_publish.connect(self.lease.check)
        try:
            self.stand_by()
            super().start(embedded_process)
        finally:
            self.lease.release()

    def stand_by(self) -> None:
        """Return when the lease is ours."""
        while True:
            try:
                if self.lease.take():
                    return
                self.tell(f"standing by, behind {self.lease.holder()}", "READY=1\n")
            except RedisError as error:
                self.tell(f"waiting for Redis: {error}")
            self.notify("WATCHDOG=1")
            time.sleep(PAUSE)

    @cached_property
    def scheduler(self) -> beat.Scheduler:
        """The scheduler, whose every tick is a turn."""
        scheduler = self.get_scheduler()
        tick = scheduler.tick
        scheduler.tick = lambda: self.turn(tick)
        return scheduler

    def turn(self, tick: Callable[[], float]) -> float:
        """Tick, if the lease is still ours, then send what canary task is due; return the seconds until the next turn."""
        self.notify("WATCHDOG=1")
        try:
            self.lease.renew()
        except LockError as error:
            self.lease.give_up(str(error))
        except RedisError as error:
            self.tell(f"waiting for Redis: {error}")
            return PAUSE
        self.tell("ticking", "READY=1\n")
        # Stopped between noting a task as sent and sending it, Beat would leave it out.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            wait = min(tick() or 0.0, RENEWAL)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        return 0.0 if self.canaries.send_next() else wait  # one a turn: no tick waits for more than one

    def tell(self, status: str, more: str = "") -> None:
        """Tell systemd and the log what this Beat does, when that has changed."""
        if status != self.status:
            self.status = status
            self.notify(f"{more}STATUS={status}")
            logger.info("Beat is %s.", status)

    def sync(self) -> None:
        """Write what was sent, if there is a schedule: who stands by has none, and loads none to stop."""
        if "scheduler" in vars(self):
            super().sync()


def install(notify: Callable[[str], None]) -> None:
    """Have `celery beat` run this service.

    :param notify: sends systemd a message.
    """
    Service.notify = staticmethod(notify)
    seams.put(Beat, "Service", Service)
