"""Keeps unacknowledged tasks when a worker loses its connection to the broker.

When the connection breaks, Celery 5.7 closes its channels. That requeues everything they hold, the running tasks too,
so that these run twice. If the broker is away, the main process exits. A task that could not be acknowledged stays
unacknowledged until the visibility timeout. But Redis accepts an acknowledgement from any connection. So running tasks
are handed to the next connection and acknowledged there, tasks that have not started are requeued, and what could not be
sent to the broker is sent again until it answers.

A broker that answers but refuses writes, because its disk or its memory is full, is treated as one that does not answer.
Nothing else is sent to it until it accepts a write.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

from coldframe.worker import pool

LIMIT = 2.0  # seconds for the last reply on the old connection, and again for child processes to accept their tasks
RETRY = 2  # seconds between two attempts to connect; Celery would wait longer each time, up to 30, and give up
NOTHING = "nothing"  # the delivery tag of no message: to acknowledge it is a write without an effect
logger = logging.getLogger(__name__)


class Held:
    """Messages that this process has not acknowledged. Replaces the channel of a message when that is closed."""

    no_ack_consumers = None

    def __init__(self) -> None:
        """Start empty. By delivery tag: `running`, messages of tasks; `owed`, messages and whether to requeue them.

        `ended` are the tags of tasks that have ended, and that a channel has not been asked to acknowledge. `one` is locked
        while it is asked: each of many green threads would take a connection of its own from kombu's pool of ten. `settling`
        is locked while what is owed is sent: two green threads would send the same, and put a task into its queue twice.
        """
        self.running: dict[str, Any] = {}
        self.owed: dict[str, tuple[Any, bool]] = {}
        self.ended: set[str] = set()
        self.one = threading.Lock()
        self.settling = threading.Lock()

    def basic_ack(self, tag: str, **_: Any) -> None:
        """Acknowledge a message later."""
        self.ended.discard(tag)
        self.owed[tag] = self.running.pop(tag, None), False

    def basic_reject(self, tag: str, requeue: bool = False) -> None:
        """Reject or requeue a message later."""
        self.owed[tag] = self.running.pop(tag, None), requeue

    def take_over(self, consumer: Any) -> None:
        """Take over what the channels of a broken connection hold: running tasks are kept, all others are requeued later."""
        # The next connection counts the running tasks as taken; Celery would count them twice.
        consumer.app.conf.worker_enable_prefetch_count_reduction = False
        for channel in consumer.connection.transport.channels:
            for client in filter(None, (vars(channel).get(name) for name in ("client", "subclient"))):
                if sock := getattr(client.connection, "_sock", None):
                    sock.settimeout(LIMIT)
        with suppress(*consumer.connection_errors):
            pool.stop_consuming(consumer)
        with self.one:  # what is being acknowledged on the old connection is so, or owed, afterwards
            for channel in consumer.connection.transport.channels:
                channel.do_restore = False
                if channel._qos:
                    for tag in channel._qos._delivered.keys() - channel._qos._dirty:
                        self.running[tag] = channel._qos._delivered[tag]
                        self.running[tag].channel = self
        begun = pool.begun(consumer.controller, LIMIT)
        for tag, message in list(self.running.items()):
            if message.headers.get("id") not in begun and tag not in self.ended:
                self.basic_reject(tag, requeue=True)

    def hand_over(self, consumer: Any) -> None:
        """Hand the running tasks to the new connection, which counts them as taken, and send what is owed."""
        channel = consumer.task_consumer.channel
        if self.running or self.owed:
            logger.info(
                "%d tasks run on; %d others are acknowledged or rejected now.", len(self.running), len(self.owed)
            )
        for tag, message in self.running.items():
            message.channel = channel
            channel.qos._delivered[tag] = message
        self.running.clear()
        self.settle(channel)

    def settle(self, channel: Any) -> Exception | None:
        """Send what is owed. Returns the error at which that stopped, or None; the next call continues."""
        broken: tuple[type[Exception], ...] = (*channel.connection_errors, channel.ResponseError)
        with self.settling:
            try:
                for tag, (message, requeue) in list(self.owed.items()):
                    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
                        channel.qos._remove_from_indices(tag, pipe)
                        if requeue and message:
                            where = message.delivery_info
                            channel._do_restore_message(message._raw, where["exchange"], where["routing_key"], pipe)
                        pipe.execute()
                    del self.owed[tag]
            except broken as error:
                return error
        return None

    def settle_apart(self, app: Any) -> Exception | None:
        """Send what is owed over a connection of its own. Returns the error at which that stopped, or None."""
        if self.owed:
            options = app.conf.broker_transport_options | {"socket_timeout": RETRY, "socket_connect_timeout": RETRY}
            try:
                with app.connection_for_write(transport_options=options) as connection:
                    connection.connect()
                    return self.settle(connection.default_channel)
            except Exception as error:
                return error
        return None


held = Held()  # the process has one
