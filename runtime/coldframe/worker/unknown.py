"""Keeps a task that this worker does not know, or cannot call, for a release that can execute it.

Celery 5.7 drops a message whose task's name is not registered, and fails a task whose function does not accept the arguments. While
two releases run beside each other, at a deploy or a rollback, that loses tasks which one of them alone can execute. Here such a
message is parked: it moves, in one step, from what is unacknowledged to the list `unknown:QUEUE:NAME`; the set `unknown:QUEUE` has
the names. Every worker of the queue looks there about once a second, and puts what it can execute back at the front of the queue.
There another worker may take it first, and park it again. The times are random because at regular ones it could be that worker
each time. What no running release could execute for `task_unknown_seconds` becomes a dead letter: it moves to the list `dead:QUEUE`,
and Celery's own handling of an unknown task follows.

An entry is the time at which it was parked, in seconds since 1970, a space, and the message as kombu keeps it in a queue.
"""

from __future__ import annotations

import inspect
import logging
import random
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, ClassVar

from celery.bootsteps import StartStopStep
from celery.signals import worker_init
from celery.worker.consumer.tasks import Tasks
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

from coldframe.release import shapes

INTERVAL = (0.5, 1.5)  # seconds between two looks, at random
BATCH = 100  # tasks of one name that go back to the queue at one look
MOST = 1000  # of them that are looked at
AGAIN = 30.0  # seconds until those that this release cannot execute are looked at again, if none comes or goes
DEAD = 1000  # dead letters that a queue keeps
SECONDS = 86400  # where the settings do not say task_unknown_seconds
RECENT = 4.0  # seconds for which the status names what was parked or went back
logger = logging.getLogger(__name__)

# Not when another worker has been given the message meanwhile.
PARK = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
return redis.call('RPUSH', KEYS[4], ARGV[3])
"""
# Those entries, unless another worker has returned them meanwhile: then the rest is left, for each would be looked for in the whole
# list. The first of them is the next to be taken from the queue.
RETURN = """
local count, gone = 0, 0
for i = #ARGV, 2, -1 do
  if gone == 3 then break end
  if redis.call('LREM', KEYS[2], 1, ARGV[i]) == 1 then
    redis.call('RPUSH', KEYS[3], ARGV[i]:sub(ARGV[i]:find(' ') + 1))
    count = count + 1
  else
    gone = gone + 1
  end
end
if redis.call('LLEN', KEYS[2]) == 0 then redis.call('SREM', KEYS[1], ARGV[1]) end
return count
"""
# The oldest one, if it is old enough.
BURY = """
local entry = redis.call('LRANGE', KEYS[1], 0, 0)[1]
if not entry or tonumber(entry:match('^%S+')) > tonumber(ARGV[1]) then return false end
redis.call('LTRIM', KEYS[1], 1, -1)
redis.call('LPUSH', KEYS[2], entry)
redis.call('LTRIM', KEYS[2], 0, ARGV[2] - 1)
return entry
"""


class Unknown(StartStopStep):
    """Returns parked tasks to their queues, and turns old ones into dead letters."""

    requires = (Tasks,)
    parked: ClassVar[dict[str, float]] = {}  # the names of tasks, and when one was parked last
    returned: ClassVar[dict[str, float]] = {}  # and when one was last put back into the queue
    timer: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Start with nothing looked at."""
        super().__init__(*arguments, **options)
        # Of tasks that are known here, and cannot be called with what is parked: how many entries there were, when, and how many
        # of them were looked at.
        self.unfit: dict[str, tuple[int, float, int]] = {}

    def start(self, consumer: Any) -> None:
        """Start to check the parked tasks, once connected."""
        delay = random.uniform(*INTERVAL)  # noqa: S311 -- it guards no secret
        self.timer = consumer.timer.call_after(delay, self.look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop that: the connection is lost, or the worker stops."""
        if timer := self.timer:
            self.timer = None
            timer.cancel()

    def look(self, consumer: Any) -> None:
        """Return tasks that this worker can execute to each queue, and give up those that none could execute for too long."""
        if not (timer := self.timer):
            return
        try:
            self.look_now(consumer)
        finally:
            if self.timer is timer:  # not stopped meanwhile
                self.start(consumer)

    def look_now(self, consumer: Any) -> None:
        """Look once."""
        channel = consumer.task_consumer.channel
        if channel.closed:  # with gevent, while a lost connection is given up
            return
        try:
            with channel.conn_or_acquire() as client:
                for queue in channel.active_queues:  # none while the worker drains
                    for name in client.smembers(f"unknown:{queue}"):
                        self.decide(
                            consumer, channel, client, queue, name.decode() if isinstance(name, bytes) else name
                        )
        except channel.ResponseError as error:
            logger.warning("The broker does not let parked tasks go: %s", error)

    def decide(self, consumer: Any, channel: Any, client: Any, queue: str, name: str) -> None:
        """Return or give up the tasks of one name."""
        names, entries = f"unknown:{queue}", f"unknown:{queue}:{name}"
        task = consumer.app.tasks[name] if name in consumer.strategies else None
        if task:
            fitting = self.fitting(task, channel, client, entries)
            if fitting or not client.llen(entries):
                self.put_back(client, names, entries, queue, name, fitting)
                return
        seconds = consumer.app.conf.get("task_unknown_seconds", SECONDS)
        bury = client.register_script(BURY)
        while True:
            oldest = [text_of(each) for each in client.lrange(entries, 0, 0)] if task else []
            if oldest and fits(task, channel, oldest[0]):  # behind too many others
                self.put_back(client, names, entries, queue, name, oldest)
                continue
            entry = bury([entries, f"dead:{queue}"], [time.time() - seconds, DEAD])
            if not entry:
                return
            message = channel.Message(loads(text_of(entry).partition(" ")[2]), channel=channel)
            try:
                headers = message.headers if "id" in message.headers else message.payload
                logger.error(
                    "%s[%s] of the queue %s is a dead letter: for %s s no release that ran could execute it.",
                    *(name, headers["id"], queue, seconds),
                )
                consumer.give_up(message, KeyError(name))
            except Exception:
                logger.exception("A receiver of the signal for the dead letter %s failed.", name)

    def put_back(self, client: Any, names: str, entries: str, queue: str, name: str, fitting: list[str]) -> None:
        """Return entries to their queue."""
        if count := client.register_script(RETURN)([names, entries, queue], [name, *fitting]):
            self.returned[name] = time.monotonic()
            logger.info("%d parked tasks %s go back into the queue %s.", count, name, queue)

    def fitting(self, task: Any, channel: Any, client: Any, key: str) -> list[str]:
        """Return the oldest entries of a task that this release can execute. Those that it cannot are looked at again only after a while.

        Not all are looked at, but the next ones at the next look.
        """
        length, now = client.llen(key), time.monotonic()
        before, when, start = self.unfit.get(key, (0, 0.0, 0))
        if start >= length:
            if before == length and now - when < AGAIN:
                return []
            start = 0
        looked = [text_of(entry) for entry in client.lrange(key, start, start + MOST - 1)]
        found = [text for text in looked if fits(task, channel, text)]
        self.unfit[key] = length, now, start if found else start + MOST
        return found[:BATCH]


def text_of(entry: bytes | str) -> str:
    """Return an entry as a text, however the connection returns texts."""
    return entry.decode() if isinstance(entry, bytes) else entry


def fits(task: Any, channel: Any, entry: str) -> bool:
    """Whether this release can execute an entry of a task that it has. Of one that cannot be read the worker will say why."""
    try:
        args, kwargs, _ = channel.Message(loads(entry.partition(" ")[2]), channel=channel).payload
    except Exception:
        return True
    return not misfit(task, args, kwargs)


@cache
def signature(task: Any) -> inspect.Signature | None:
    """Return what `shapes.signature` does."""
    return shapes.signature(task)


def misfit(task: Any, args: Sequence[Any], kwargs: Iterable[str]) -> str:
    """Say why a task cannot be called with such arguments; an empty text if it can, or if that is not known.

    :param kwargs: the names of those that are given by name.
    """
    accepted = signature(task)
    return shapes.unbound(accepted, len(args), kwargs) if accepted else ""


def unfit(consumer: Any, message: Any) -> str:
    """Say why this release cannot execute a message whose task it has; an empty text if it can."""
    task = consumer.app.tasks.get(message.headers["task"])
    args, kwargs, _ = message.payload
    return misfit(task, args, kwargs) if task else ""


def park(message: Any, why: str = "") -> None:
    """Park a message.

    :param why: the reason, if not that the task is unknown.

    Raises a connection error or ResponseError when the broker fails. The message is requeued then, like all that have
    not started when the connection is lost (coldframe.worker.held).
    """
    channel, task = message.channel, message.headers if "task" in message.headers else message.payload
    queue = message.delivery_info["routing_key"]
    if queue not in channel.active_queues:
        queue = next(iter(channel.active_queues), queue)
    keys = [channel.unacked_key, channel.unacked_index_key, f"unknown:{queue}", f"unknown:{queue}:{task['task']}"]
    entry = f"{time.time():.0f} {dumps(message._raw)}"
    with channel.conn_or_acquire() as client:
        client.register_script(PARK)(keys, [message.delivery_tag, task["task"], entry])
    virtual.QoS.ack(channel.qos, message.delivery_tag)
    Unknown.parked[task["task"]] = time.monotonic()
    reason = (
        f"cannot be called here ({why}) and waits for a release that can"
        if why
        else "is unknown here and waits for a release that knows it"
    )
    logger.warning("%s[%s] %s.", task["task"], task["id"], reason)


def status() -> str:
    """Name the tasks that were parked or returned a moment ago; an empty text when there are none."""
    since = time.monotonic() - RECENT
    recent = {
        doing: sorted(name for name, at in list(names.items()) if at > since)
        for doing, names in (("parking", Unknown.parked), ("returning", Unknown.returned))
    }
    return "".join(f", {doing} {', '.join(names)}" for doing, names in recent.items() if names)


def install() -> None:
    """Add the step to each worker's consumer."""

    @worker_init.connect(weak=False)
    def add(sender: Any, **_: Any) -> None:
        sender.app.steps["consumer"].add(Unknown)
