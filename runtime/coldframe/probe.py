"""Shows that each queue is served: every 30 s a queue probe is sent to it, a worker executes it, and both are recorded.

The Beat that ticks sends them. Records are in the Redis database of locks: `probe:sent:QUEUE` is the time at which the last
one was sent, `probe:done:QUEUE` describes the last one that was executed, `probe:waits:QUEUE` is a stream of how long those of the
last day waited. Each has one writer, and all times are from Redis' clock. While one waits in its queue no other is sent, so they do not pile up without a consumer. The application is not
involved: it imports nothing, gets no result and no event, and its own base class of tasks is not used.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import redis
from celery import Task, shared_task

from coldframe import credentials

NAME = "coldframe.probe"
INTERVAL = 30.0  # seconds from one probe of a queue to the next
KEEP = 24 * 3600  # seconds for which a record is kept
QUIET = ("celery.worker.strategy", "celery.app.trace")  # they log that a task was received, and that it succeeded
logger = logging.getLogger(__name__)


def clock(client: redis.Redis) -> float:
    """Return Redis' time, in seconds since 1970."""
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


@shared_task(name=NAME, base=Task, bind=True, ignore_result=True, acks_late=False, send_events=False)
def probe(task: Any, queue: str, sent: float) -> None:
    """Record that a probe of the queue was executed, when, and by which worker."""
    try:
        with credentials.locks() as client:
            now = clock(client)
            done = {"sent": float(sent), "done": now, "worker": task.request.hostname}
            client.set(f"probe:done:{queue}", json.dumps(done), ex=KEEP)
            with client.pipeline() as pipe:
                waited = {"seconds": round(max(0.0, now - sent), 3)}
                pipe.xadd(f"probe:waits:{queue}", waited, minid=int((now - KEEP) * 1000))
                pipe.expire(f"probe:waits:{queue}", KEEP)
                pipe.execute()
    except redis.RedisError as error:  # a fault of Redis, which must not fail a task
        logger.warning("The time of the queue probe was not recorded: %s", error)


class NoEvents:
    """Sends no task-sent event, even with `task_send_sent_event`: Flower would show the task as pending forever."""

    @staticmethod
    def publish(*_: Any, **__: Any) -> None:
        """Do nothing."""


class Probes:
    """Sends the probes of all queues; one Beat does so at a time."""

    def __init__(self, app: Any, client: redis.Redis) -> None:
        """Start with every queue due.

        :param client: of the Redis database of locks.
        """
        self.app, self.redis = app, client
        self.due = dict.fromkeys(app.amqp.queues, 0.0)

    def send_next(self) -> bool:
        """Send the probe of one queue, if one is due; return whether it was. Raises nothing."""
        queue = min(self.due, key=self.due.__getitem__)
        if (now := time.monotonic()) < self.due[queue]:
            return False
        self.due[queue] = now + INTERVAL
        try:
            if not self.waits(queue):
                self.send(queue)
        except Exception as error:
            logger.warning("No queue probe was sent to the queue %s: %s", queue, error)
        return True

    def waits(self, queue: str) -> bool:
        """Whether the last one may still be in the queue. One that was not executed, with the queue empty, is lost."""
        sent, done = self.redis.get(f"probe:sent:{queue}"), self.redis.get(f"probe:done:{queue}")
        if not sent or (done and json.loads(done)["sent"] >= float(sent)):
            return False
        with self.app.producer_or_acquire() as producer:
            return bool(producer.channel.queue_declare(queue).message_count > 0)

    def send(self, queue: str) -> None:
        """Send one, and record that."""
        now = clock(self.redis)
        self.app.tasks[NAME].apply_async((queue, now), queue=queue, event_dispatcher=NoEvents)
        self.redis.set(f"probe:sent:{queue}", now, ex=KEEP)


def install() -> None:
    """Keep successful queue probes out of the log. Two lines per queue every 30 s would fill it."""
    for name in QUIET:
        logging.getLogger(name).addFilter(
            lambda record: record.levelno > logging.INFO or getattr(record, "data", {}).get("name") != NAME
        )
