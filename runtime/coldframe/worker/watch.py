"""Detects a worker that hangs, so that systemd's watchdog restarts it.

While the broker does not answer, an idle worker is not at fault. A restart would not help it, and would end the tasks
that it runs.
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

QUIET = 12.0  # seconds without a sign of life; the event loop turns at least every 10 s, a BRPOP is sent every second
GRACE = 20.0  # further seconds in which the broker must answer; reads from a broken connection time out after 10
TIMEOUT = 2.0  # seconds for each reply to the watch


class Watch:
    """Observes a worker from a thread of its own. It only reads what the event loop owns."""

    def __init__(self, worker: Any, rest: Any) -> None:
        """Remember the worker.

        :param rest: what its event loop calls at every turn (coldframe.worker.stop).
        """
        self.worker, self.rest = worker, rest
        self.well = self.full = time.monotonic()
        self.given: dict[str, float] = {}  # since when a task should have started
        channel = worker.consumer.task_consumer.channel
        options = channel._connparams() | {"socket_timeout": TIMEOUT, "retry": Retry(NoBackoff(), 0)}
        if "socket_connect_timeout" in options:  # not for a socket in the file system
            options["socket_connect_timeout"] = TIMEOUT
        self.broker = Redis(connection_pool=ConnectionPool(**options))

    def fault(self) -> str:
        """Return what has been wrong with the worker for too long; an empty text when nothing is."""
        suspicion = self.suspicion()
        now = time.monotonic()
        if not suspicion or not self.broker_answers():
            self.well = now
        return suspicion if now - self.well > GRACE else ""

    def suspicion(self) -> str:
        """Return what looks wrong now."""
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
        """Whether the worker can take a task: its channel says so, or it has no task that could end."""
        waiting = any(bucket and bucket.contents for bucket in tuple(self.worker.consumer.task_buckets.values()))
        return channel.qos.can_consume() or not (state.requests or waiting or pool.jobs(self.worker))

    def late(self, running: tuple[Any, ...]) -> str:
        """Name a task that runs far beyond its time limit. With threads, only when all of them do: none can be ended."""
        end = time.time() - QUIET
        late = [r for r in running if r.time_start and (limit := self.limit(r)) and r.time_start + limit < end]
        if not late:  # a pool that is closing does not know its size
            return ""
        prefork = hasattr(self.worker.pool._pool, "_cache")
        return (
            f"{late[0].name}[{late[0].id}]" if len(late) >= (1 if prefork else self.worker.pool.num_processes) else ""
        )

    def not_begun(self, running: tuple[Any, ...]) -> str:
        """Name a task that a process should have started. That takes milliseconds, once it has the task or all are idle."""
        now = time.monotonic()
        waiting = list(getattr(self.worker.pool._pool, "outbound_buffer", ()))  # perhaps again
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
        """Whether the broker replies to PING on a connection of the watch's own."""
        with suppress(RedisError, OSError):
            return bool(self.broker.ping())
        return False
