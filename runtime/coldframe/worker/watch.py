"""Tells whether a worker does its work, so that systemd can restart one that could and does not.

While the broker does not answer, nothing is wrong with a worker that does nothing: a restart would
not help it, and would end the tasks that it runs.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from celery.worker import state
from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from coldframe.worker import pool

QUIET = 12.0  # seconds without a sign of life; the event loop turns at least every 10, a BRPOP is sent every second
GRACE = 20.0  # seconds more in which the broker answers; what waits for a broken connection gives up after 10
TIMEOUT = 2.0  # seconds for each answer to the watch


class Watch:
    """Looks at a worker from a thread of its own; only reads what belongs to the event loop."""

    def __init__(self, worker: Any, rest: Any) -> None:
        """Remember the worker, and what its event loop calls at every turn."""
        self.worker, self.rest = worker, rest
        self.well = self.full = time.monotonic()
        self.given: dict[str, float] = {}  # since when a task should have begun
        channel = worker.consumer.task_consumer.channel
        options = channel._connparams() | {"socket_timeout": TIMEOUT, "retry": Retry(NoBackoff(), 0)}
        if "socket_connect_timeout" in options:  # not for a socket in the file system
            options["socket_connect_timeout"] = TIMEOUT
        self.broker = Redis(connection_pool=ConnectionPool(**options))

    def fault(self) -> str:
        """Say what has been wrong with the worker for too long; empty when nothing is."""
        suspicion = self.suspicion()
        now = time.monotonic()
        if not suspicion or not self.broker_answers():
            self.well = now
        return suspicion if now - self.well > GRACE else ""

    def suspicion(self) -> str:
        """Say what looks wrong now."""
        now, running = time.monotonic(), pool.running()
        one_by_one = self.worker.pool.limit == 1 and not hasattr(self.worker.pool._pool, "_cache")  # solo
        if late := self.late(running):
            return f"{late} runs far beyond its time limit"
        if task := self.not_begun(running):
            return f"no process of the pool has begun {task}"
        if one_by_one and running:
            self.full = now
            return ""  # the event loop waits for the task
        if now - self.rest.turned > QUIET:
            return f"the event loop has not turned for {now - self.rest.turned:.0f} s"
        consumer = self.worker.consumer
        channel = getattr(consumer.task_consumer, "channel", None)
        if not consumer.connection or not channel or not channel.active_queues or not self.has_room(channel):
            self.full = now
        elif (waited := now - max(self.full, channel._brpop_sent_at or 0)) > QUIET:
            return f"there is room for tasks and none has been asked for during {waited:.0f} s"
        return ""

    def has_room(self, channel: Any) -> bool:
        """Whether the worker may take a task: its channel says so, or it has none that could end."""
        waiting = any(bucket and bucket.contents for bucket in tuple(self.worker.consumer.task_buckets.values()))
        return channel.qos.can_consume() or not (state.requests or waiting or pool.jobs(self.worker))

    def late(self, running: tuple[Any, ...]) -> str:
        """Name a task that should have been ended; of threads, which cannot be, when none is left for other work."""
        end = time.time() - QUIET
        late = [r for r in running if r.time_start and (limit := self.limit(r)) and r.time_start + limit < end]
        if not late:  # a pool that ends could not say how large it is
            return ""
        prefork = hasattr(self.worker.pool._pool, "_cache")
        return (
            f"{late[0].name}[{late[0].id}]" if len(late) >= (1 if prefork else self.worker.pool.num_processes) else ""
        )

    def not_begun(self, running: tuple[Any, ...]) -> str:
        """Name a task that should have begun, as a process was given it or all are idle: it takes milliseconds."""
        now = time.monotonic()
        waiting = list(getattr(self.worker.pool._pool, "outbound_buffer", ()))  # for a child, perhaps for a second one
        given = [job for job in pool.jobs(self.worker) if job._write_to and not job._accepted and job not in waiting]
        tasks = {job.correlation_id for job in given} | ({r.id for r in pool.taken()} if not running else set())
        self.given = {task: self.given.get(task, now) for task in tasks}
        return next((task for task, since in self.given.items() if now - since > QUIET), "")

    def limit(self, request: Any) -> float | None:
        """Return a task's hard time limit, in seconds."""
        hard, _ = request.time_limits or (None, None)
        most = self.worker.time_limit
        asked = hard or request.task.time_limit or most
        limit: float | None = min(asked, most) if asked and most else asked
        return limit

    def broker_answers(self) -> bool:
        """Ask the broker over a connection that is nobody else's."""
        with suppress(RedisError, OSError):
            return bool(self.broker.ping())
        return False
